"""Pulling, making, copying and deleting models over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbllm.errors import ModelNotFoundError
from nbllm.server import pulls
from nbllm.store.pulling import PullError, PullProgress
from tests.server.serving import CHAT, OTHER, TOY, Answer, Site, wait_until
from tests.store.gguf_writer import tiny_model, write
from tests.store.hub import Hub, serving, use

API = "nbllm/ollama/api/"
_SHA = "0123456789ab" + "c" * 52


def _lines(answer: Answer) -> list[dict[str, Any]]:
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines()]


def _failure(answer: Answer) -> tuple[int, str]:
    told = answer.json()
    assert set(told) == {"error"}
    return answer.status, told["error"]


def _names(site: Site) -> set[str]:
    return {model["name"] for model in site.get(API + "tags").json()["models"]}


def _create(site: Site, **body: Any) -> Answer:
    return site.post(API + "create", {"stream": False, **body})


# ---- pull


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        use(hub, monkeypatch)
        hub.files["org/repo"] = {"m.Q4_0.gguf": tiny_model()}
        yield hub


def _pulled(site: Site, name: str, **more: Any) -> Answer:
    return site.post(API + "pull", {"model": name, **more}, timeout_s=30)


def test_pull(site: Site, hub: Hub) -> None:
    first, *middle, last = _lines(_pulled(site, "hf:org/repo:Q4_0"))
    assert (first, last) == ({"status": "pulling manifest"}, {"status": "success"})
    bars = [line for line in middle if "digest" in line]
    assert bars[-1]["completed"] == bars[-1]["total"] == len(tiny_model())
    assert all(bar["status"] == f"pulling {bar['digest'][7:19]}" for bar in bars)
    assert "org/repo/m.Q4_0:latest" in _names(site)
    asked = {"model": "hf:org/repo:Q4_0", "prompt": "x", "stream": False}
    assert site.post(API + "generate", asked).status == 200


@pytest.mark.parametrize("key", ["model", "name"])
def test_pull_without_a_stream(site: Site, hub: Hub, key: str) -> None:
    answer = site.post(API + "pull", {key: "hf:org/repo", "stream": False}, timeout_s=30)
    assert (answer.status, answer.json()) == (200, {"status": "success"})


def _reports(monkeypatch: pytest.MonkeyPatch, *parts: PullProgress | Exception) -> list[str]:
    """What pulls do from here on; gives the names that they are asked for."""
    asked: list[str] = []

    def pull(name: str, *, on_progress: Any, **_: object) -> None:
        asked.append(name)
        for part in parts:
            if isinstance(part, Exception):
                raise part
            on_progress(part)

    monkeypatch.setattr(pulls, "pull", pull)
    return asked


_DOWNLOADING = PullProgress(status="downloading", file="m.gguf", sha256=_SHA, done=5, total=9)


def test_pull_of_what_is_here_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    done = PullProgress(status="done", file="m.gguf", sha256=_SHA, notes=("its template is not used",))
    _reports(monkeypatch, replace(_DOWNLOADING, status="waiting"), replace(_DOWNLOADING, status="checking"), done)
    statuses = [line["status"] for line in _lines(_pulled(site, "m"))]
    assert statuses[0] == "pulling manifest"
    assert statuses[1:][-4:] == ["verifying sha256 digest", "writing manifest", "its template is not used", "success"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ModelNotFoundError("no model 'x'"), 404), (PullError("offline"), 503)],
    ids=["no such model", "offline"],
)
def test_pull_that_never_began_has_a_status(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, stream: bool
) -> None:
    _reports(monkeypatch, PullProgress(status="resolving"), error)
    assert _failure(_pulled(site, "x", stream=stream)) == (status, str(error))


def test_pull_that_fails_later_says_so_in_its_last_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _reports(monkeypatch, _DOWNLOADING, PullError("the connection failed"))
    answer = _pulled(site, "x")
    assert answer.status == 200
    assert _lines(answer)[-1] == {"error": "the connection failed"}


def test_pull_of_an_alias_is_that_models(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _reports(monkeypatch)
    assert _pulled(site, "gpt-4:latest", stream=False).json() == {"status": "success"}
    assert asked == []  # it is here, and nothing may come in its place
    _pulled(site, "gemma:7b", stream=False)
    assert asked == ["gemma:7b"]


def test_client_that_goes_away_ends_its_pull_and_leaves_the_part(site: Site, hub: Hub) -> None:
    data = tiny_model() + bytes(4 * 2**20)
    hub.files["org/repo"] = {"m.Q4_0.gguf": data}
    hub.cuts.append(2**20)
    hub.released.clear()
    with site.raw_post(API + "pull", {"model": "hf:org/repo"}):
        wait_until(lambda: hub.asked)
    wait_until(lambda: site.in_flight == 0)
    hub.released.set()
    assert site.service.pulls._works == {}
    assert _lines(_pulled(site, "hf:org/repo"))[-1] == {"status": "success"}


# ---- create


def test_create_streams_what_it_does(site: Site) -> None:
    lines = _lines(site.post(API + "create", {"name": "mario:latest", "from": "toy:latest", "system": "x"}))
    assert [line["status"] for line in lines][-2:] == ["writing manifest", "success"]
    assert "mario:latest" in _names(site)


_MODELFILE = '# mine\nFROM toy\nPARAMETER temperature 0.5\nSYSTEM """Be\nMario."""\n'


@pytest.mark.parametrize("more", [{}, {"from": "gpt-4", "system": "Be Luigi."}], ids=["alone", "with fields"])
def test_create_from_a_modelfile(site: Site, more: dict[str, str]) -> None:
    assert _create(site, model="mario", modelfile=_MODELFILE, **more).status == 200
    shown = site.post(API + "show", {"model": "mario"}).json()
    assert shown["system"] == more.get("system", "Be\nMario.")
    assert shown["parameters"].split() == ["temperature", "0.5"]


@pytest.mark.parametrize("key", ["model", "name"])
def test_create_from_the_text_alone(site: Site, key: str) -> None:
    answer = site.post(API + f"create?{key}=mario", _MODELFILE.encode(), headers={"Content-Type": "text/plain"})
    assert _lines(answer)[-1] == {"status": "success"}
    assert site.post(API + "show", {"model": "mario"}).json()["system"] == "Be\nMario."


def test_create_over_another(site: Site) -> None:
    for system in ("one", "two"):
        _create(site, model="mario", system=system, **{"from": TOY})
    assert site.post(API + "show", {"model": "mario"}).json()["system"] == "two"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"from": TOY}, 400, "model is required"),
        ({"model": "m"}, 400, "from is required"),
        ({"model": "m", "from": "nothing"}, 404, "nothing"),
        ({"model": "m", "from": "broken"}, 404, "cannot be loaded"),
        ({"model": "m", "from": "/etc/passwd"}, 404, "no model"),
        ({"model": "m", "from": "../../etc/passwd"}, 404, "no model"),
        ({"model": "m", "from": "toy.gguf/../toy"}, 404, "no model"),
        ({"model": "../m", "from": TOY}, 400, "name"),
        ({"model": "m/../../x", "from": TOY}, 400, "name"),
        ({"model": TOY, "from": OTHER}, 400, "is the name of a model"),
        ({"model": "gpt-4", "from": OTHER}, 400, "has a meaning in the settings"),
        ({"model": "default", "from": OTHER}, 400, "has a meaning in the settings"),
        ({"model": "m", "files": {"a": f"sha256:{'a' * 64}"}}, 400, "send it to /api/blobs/"),
        ({"model": "m", "files": {"a": "/etc/passwd"}}, 400, "lower-case hex digits"),
        ({"model": "m", "files": {"a": f"sha256:{'a' * 64}", "b": f"sha256:{'b' * 64}"}}, 400, "one GGUF"),
        ({"model": "m", "from": TOY, "files": {"a": f"sha256:{'a' * 64}"}}, 400, "give one of them"),
        ({"model": "m", "from": TOY, "adapters": {"a": f"sha256:{'a' * 64}"}}, 400, "adapters[0]"),
        ({"model": "m", "from": TOY, "adapters": {"a": "../a"}}, 400, "adapters"),
        ({"model": "m", "from": TOY, "quantize": "q4_K_S"}, 400, "quantize"),
        ({"model": "m", "from": TOY, "parameters": {"temprature": 1}}, 400, "temperature"),
        ({"model": "m", "from": TOY, "parameters": {"temperature": 999}}, 400, "temperature"),
        ({"model": "m", "from": TOY, "messages": [{"role": "king", "content": "x"}]}, 400, "messages[0].role"),
        ({"model": "m", "modelfile": "FROM toy\nFORM toy\n"}, 400, "line 2"),
        ({"model": "m", "modelfile": "FROM /etc/passwd\n"}, 400, "line 1"),
        ({"model": "m", "modelfile": "FROM toy\nADAPTER /etc/passwd\n"}, 400, "line 2"),
        ({"model": "m", "from": TOY, "system": 5}, 400, "system"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_create_refused(site: Site, body: dict[str, Any], status: int, said: str) -> None:
    for stream in (False, True):
        answer = site.post(API + "create", {**body, "stream": stream})
        assert _failure(answer)[0] == status, answer.body
        assert said in _failure(answer)[1]
        assert str(site.folder) not in _failure(answer)[1]
    assert not list(site.models_dir.glob(".presets/*"))


@pytest.mark.parametrize("body", [b"", b"FROM toy\n", b"\xff\xfe"], ids=["nothing", "no name", "no text"])
def test_create_without_a_name(site: Site, body: bytes) -> None:
    assert _failure(site.post(API + "create", body))[0] == 400


def test_quantization_that_the_weights_have_is_no_work(site: Site) -> None:
    level = site.post(API + "show", {"model": TOY}).json()["details"]["quantization_level"]
    assert _create(site, model="mario", quantize=level.lower(), **{"from": TOY}).status == 200


# ---- copy and delete


@pytest.mark.parametrize("source", [TOY, "toy:latest", "gpt-4", OTHER, "mario"])
def test_copy(site: Site, source: str) -> None:
    _create(site, model="mario", system="x", **{"from": TOY})
    answer = site.post(API + "copy", {"source": source, "destination": "backup:7b"})
    assert (answer.status, answer.body) == (200, b"")
    assert "backup:7b" in _names(site)
    assert site.post(API + "generate", {"model": "backup:7b", "prompt": "x", "stream": False}).status == 200
    assert not list(site.models_dir.rglob("backup*.gguf"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"source": "nothing", "destination": "m"}, 404),
        ({"source": "/etc/passwd", "destination": "m"}, 404),
        ({"source": TOY, "destination": "../m"}, 400),
        ({"source": TOY, "destination": OTHER}, 400),
        ({"source": TOY, "destination": "toy:latest"}, 400),
        ({"source": TOY}, 400),
        ({"destination": "m"}, 400),
    ],
    ids=str,
)
def test_copy_refused(site: Site, body: dict[str, str], status: int) -> None:
    answer = site.post(API + "copy", body)
    assert _failure(answer)[0] == status
    assert str(site.folder) not in answer.body.decode()


def _delete(site: Site, name: str, key: str = "model") -> Answer:
    return site.request("DELETE", API + "delete", {key: name})


@pytest.mark.parametrize("key", ["model", "name"])
@pytest.mark.parametrize("name", ["spare", "spare:latest"])
def test_delete(site: Site, name: str, key: str) -> None:
    file = write(site.models_dir / "spare.gguf", tiny_model())
    answer = _delete(site, name, key)
    assert (answer.status, answer.body, file.exists()) == (200, b"", False)
    assert _failure(_delete(site, name))[0] == 404


def test_delete_of_a_loaded_model_unloads_it(site: Site) -> None:
    write(site.models_dir / "spare.gguf", tiny_model())
    site.post(API + "generate", {"model": "spare"})
    assert [model["name"] for model in site.get(API + "ps").json()["models"]] == ["spare:latest"]
    assert _delete(site, "spare").status == 200
    assert site.get(API + "ps").json()["models"] == []
    assert not site.cast.runners[-1].is_alive


def test_delete_of_a_preset_leaves_its_base(site: Site) -> None:
    _create(site, model="mario", **{"from": TOY})
    site.post(API + "generate", {"model": "mario"})
    assert _delete(site, "mario").status == 200
    assert _failure(site.post(API + "show", {"model": "mario"}))[0] == 404
    assert site.get(API + "ps").json()["models"] == []
    assert site.post(API + "generate", {"model": TOY}).status == 200


def test_delete_of_a_preset_leaves_what_others_use(site: Site) -> None:
    _create(site, model="mario", **{"from": TOY})
    _create(site, model="luigi", **{"from": TOY, "parameters": {"num_ctx": 128}})
    for name in ("mario", TOY, "luigi"):
        site.post(API + "generate", {"model": name})
    assert _delete(site, "luigi").status == 200
    assert _delete(site, "mario").status == 200
    assert [model["name"] for model in site.get(API + "ps").json()["models"]] == ["toy:latest"]


def test_unloading_a_preset_leaves_the_copies_that_others_have(site: Site) -> None:
    _create(site, model="mario", **{"from": TOY})
    _create(site, model="luigi", **{"from": TOY, "parameters": {"num_ctx": 128}})
    for name in ("mario", "luigi"):
        site.post(API + "generate", {"model": name})
    assert site.post(API + "generate", {"model": "luigi", "keep_alive": 0}).json()["done_reason"] == "unload"
    assert [model["name"] for model in site.get(API + "ps").json()["models"]] == ["mario:latest"]
    site.post(API + "generate", {"model": "luigi"})
    site.post(API + "generate", {"model": TOY, "keep_alive": 0})
    assert site.get(API + "ps").json()["models"] == []


def test_base_of_a_preset_is_not_deleted_before_it(site: Site) -> None:
    file = write(site.models_dir / "spare.gguf", tiny_model())
    _create(site, model="mario", **{"from": "spare"})
    status, said = _failure(_delete(site, "spare"))
    assert (status, said) == (
        400,
        "mario is made of spare, and will not load without it: delete what is made of it first",
    )
    assert file.exists()
    assert [_delete(site, name).status for name in ("mario", "spare")] == [200, 200]


@pytest.mark.parametrize("name", ["smollm2", "gpt-4"])
def test_delete_of_what_is_not_ours_is_forbidden(site: Site, name: str) -> None:
    status, said = _failure(_delete(site, name))
    assert (status, name in said) == (403, True)


def test_delete_from_another_programs_store_is_forbidden(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "theirs.gguf", tiny_model())
    config = replace(site.service.config(), models_dirs=(tmp_path,))
    monkeypatch.setattr(site.service, "config", lambda: config)
    status, said = _failure(_delete(site, "theirs"))
    assert (status, file.exists()) == (403, True)
    assert str(tmp_path) not in said


# ---- all of them


_MANAGED = [
    ("POST", "pull", {"model": "nothing-of-that-name"}),
    ("POST", "create", {"model": "m", "from": TOY}),
    ("POST", "copy", {"source": TOY, "destination": "m"}),
    ("DELETE", "delete", {"model": "nothing"}),
]


@pytest.mark.parametrize(("method", "path", "body"), _MANAGED, ids=[path for _, path, _ in _MANAGED])
def test_manage_needs_its_scope(site: Site, method: str, path: str, body: dict[str, str]) -> None:
    wrong = {"Authorization": f"Bearer {site.keys.create('wrong').secret}"}
    status, said = _failure(site.request(method, API + path, body, wrong, bare=True))
    assert (status, "manage" in said) == (403, True)
    assert _failure(site.request(method, API + path, body, bare=True))[0] == 401
    narrow = {"Authorization": f"Bearer {site.keys.create('narrow', scopes=['manage'], models=['x']).secret}"}
    assert _failure(site.request(method, API + path, body, narrow, bare=True))[0] in (403, 404)
    assert _names(site) & {"m:latest"} == set()


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in _MANAGED])
@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b'{"model": 5}', b'{"model": ""}', b'{"model": null}'])
def test_manage_of_nothing(site: Site, method: str, path: str, body: bytes) -> None:
    status, said = _failure(site.request(method, API + path, body))
    assert (status, bool(said)) == (400, True)


_PARTS = ["..", "/", "\\", "\0", "%2e%2e", ".", "~", ":", "toy", "models", "sha256:", "a", "\n", "C:", "é", "CON", "hf"]
_TRAVERSALS = st.one_of(
    st.lists(st.sampled_from(_PARTS), min_size=1, max_size=8).map("".join),
    st.sampled_from(["../../etc/passwd", "/etc/passwd", "..\\..\\x", "toy/../../x", "~/x", "file:///etc/passwd"]),
)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_name_leaves_its_folder(site: Site, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    def refused(name: str, **_: object) -> None:
        raise PullError("offline")

    monkeypatch.setattr(pulls, "pull", refused)  # its own names are tested where it is
    method, path = data.draw(st.sampled_from([(method, path) for method, path, _ in _MANAGED]))
    fields = ["model", "name", "source", "destination", "from", "modelfile", "system", "template", "quantize"]
    body: dict[str, Any] = {field: data.draw(_TRAVERSALS) for field in data.draw(st.sets(st.sampled_from(fields)))}
    if data.draw(st.booleans()):
        body["files"] = {data.draw(_TRAVERSALS): data.draw(_TRAVERSALS)}
        body["adapters"] = {data.draw(_TRAVERSALS): data.draw(_TRAVERSALS)}
    before = _files(site)
    answer = site.request(method, API + path, body)
    assert answer.status in (200, 400, 403, 404, 503), (answer.status, answer.body)
    assert str(site.folder) not in answer.body.decode()
    made = {file.parent.relative_to(site.models_dir).as_posix() for file in _files(site) - before}
    assert made <= {".presets"}
    assert not before - _files(site) - {file for file in before if file.parent.name == ".presets"}


def _files(site: Site) -> set[Path]:
    ours = (site.models_dir, site.folder.parent)
    return {Path(folder, name) for root in ours for folder, _, names in os.walk(root) for name in names}


@pytest.mark.parametrize("name", ["../x", "a/../../b", "%2e%2e/x"])
def test_name_in_the_query_leaves_no_folder(site: Site, name: str) -> None:
    answer = site.post(API + f"create?model={quote(name, safe='')}", b"FROM toy\n", headers={"Content-Type": ""})
    assert _failure(answer)[0] == 400


def test_preset_does_not_hide_what_chats_ask_for(site: Site) -> None:
    assert _create(site, model="toy:latest", **{"from": OTHER}).status == 400
    assert site.post(CHAT, {"model": TOY, "messages": [{"role": "user", "content": "x"}]}).status == 200
