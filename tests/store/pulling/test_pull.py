from __future__ import annotations

import errno
import hashlib
import logging
import random
import shutil
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbllm.config import Config
from nbllm.errors import ModelError, ModelNotFoundError, NbllmError, ParameterError
from nbllm.store import resolve, resolve_listed
from nbllm.store.pulling import PullError, PullProgress, download, pull
from nbllm.store.remote import short_names
from nbllm.store.remote.pulled import pulled_path
from nbllm.store.remote.short_names import short_name
from tests.store.gguf_writer import gguf, text
from tests.store.hub import COMMIT, TOKEN, Hub
from tests.store.pulling.disk import fill_disk

SIZE = 300_000
DATA = random.Random(7).randbytes(SIZE)
NAME = "hf:org/repo:Q4_0"
FREE = 1 << 40


@pytest.fixture
def one_file(hub: Hub) -> Hub:
    hub.files["org/repo"] = {"README.md": b"hello", "m-Q4_0.gguf": DATA}
    return hub


@pytest.fixture
def place(config: Config) -> Path:
    return config.models_dir / "org" / "repo" / "m-Q4_0.gguf"


def left(config: Config) -> list[str]:
    return sorted(path.relative_to(config.models_dir).as_posix() for path in config.models_dir.rglob("*"))


# ---- a whole pull


def test_a_pulled_model_has_a_name(hub: Hub, config: Config) -> None:
    data = gguf({"general.architecture": text("llama")}) + bytes(1000)
    hub.files["org/repo"] = {"m-Q4_0.gguf": data}
    path = pull(NAME, config=config, memory_bytes=FREE)
    assert path.read_bytes() == data
    assert left(config) == ["org", "org/repo", "org/repo/m-Q4_0.gguf"]
    assert resolve("org/repo/m-Q4_0", config) == path
    assert hub.asked == ["GET /api/models/org/repo/revision/main", f"GET /org/repo/resolve/{COMMIT}/m-Q4_0.gguf"]


@pytest.mark.parametrize(
    "name",
    [
        "hf:org/repo",
        "hf:org/repo/m-Q4_0.gguf",
        "https://huggingface.co/org/repo",
        "https://huggingface.co/org/repo/blob/main/m-Q4_0.gguf",
        "hf.co/org/repo:q4_0",
    ],
)
def test_every_form_of_name(one_file: Hub, config: Config, place: Path, name: str) -> None:
    assert pulled_path(name, config, memory_bytes=FREE) is None
    assert pull(name, config=config, memory_bytes=FREE) == place
    assert place.read_bytes() == DATA
    assert pulled_path(name, config, memory_bytes=FREE) == place


@pytest.fixture
def listed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hub has a model of the table, whose SHA-256 there is that of the test's bytes."""
    model = short_name("smollm2:135m")
    assert model is not None
    hub.files[model.repository] = {model.file: DATA}
    there = replace(model, sha256=hashlib.sha256(DATA).hexdigest())
    monkeypatch.setattr(short_names, "_table", lambda: {model.name: there})
    return model.name


def test_a_short_name(listed: str, config: Config) -> None:
    path = pull("smollm2:135m", config=config, memory_bytes=FREE)
    assert path == config.models_dir / "bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf"
    assert pulled_path("smollm2:135m", config, memory_bytes=FREE) == path
    assert resolve("smollm2:135m", config) == resolve_listed("smollm2:135m", config) == path


def test_a_short_name_whose_file_was_replaced_gets_nothing(listed: str, hub: Hub, config: Config) -> None:
    repository, file = next((repository, file) for repository, files in hub.files.items() for file in files)
    hub.files[repository][file] = DATA[::-1]
    with pytest.raises(PullError, match=f"not the file any more .* pull hf:{repository}/{file}$") as caught:
        pull(listed, config=config, memory_bytes=FREE)
    assert f"see {hub.endpoint}/{repository}" in str(caught.value)
    assert hub.downloads == 0
    assert left(config) == []
    assert pull(f"hf:{repository}/{file}", config=config, memory_bytes=FREE).read_bytes() == DATA[::-1]


@pytest.mark.parametrize(("memory", "label"), [(1 << 40, "Q8_0"), (800 << 20, "Q2_K")])
def test_quantization_is_chosen_by_memory(hub: Hub, config: Config, memory: int, label: str) -> None:
    hub.files["org/repo"] = {"m-Q2_K.gguf": DATA[:100], "m-Q8_0.gguf": DATA, "m-F16.gguf": DATA * 2}
    config = Config(models_dir=config.models_dir, memory_fraction=512 * 10**6 / (800 << 20) + 200 / (800 << 20))
    assert pull("hf:org/repo", config=config, memory_bytes=memory).name == f"m-{label}.gguf"


def test_split_model_and_projector_come_together(hub: Hub, config: Config) -> None:
    names = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"]
    hub.files["org/repo"] = {names[1]: DATA[:9], names[0]: DATA, "mmproj-f16.gguf": DATA[:5], "m-Q4_0.gguf": DATA}
    seen: list[PullProgress] = []
    path = pull("hf:org/repo:Q8_0", config=config, memory_bytes=FREE, on_progress=seen.append)
    folder = config.models_dir / "org" / "repo" / "Q8_0"
    assert path == folder / "m-Q8_0-00001-of-00002.gguf"
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "m-Q8_0-00001-of-00002.gguf": DATA, "m-Q8_0-00002-of-00002.gguf": DATA[:9], "mmproj-f16.gguf": DATA[:5],
    }  # fmt: skip
    assert pulled_path("hf:org/repo", config, memory_bytes=FREE) == path
    files = [progress.file for progress in seen if progress.status == "downloading"]
    assert list(dict.fromkeys(files)) == [*(name.rpartition("/")[2] for name in names), "mmproj-f16.gguf"]


def test_progress_goes_from_nothing_to_all(one_file: Hub, config: Config) -> None:
    seen: list[PullProgress] = []
    pull(NAME, config=config, memory_bytes=FREE, on_progress=seen.append)
    assert seen[0] == PullProgress(status="resolving")
    assert (seen[-1].status, seen[-1].name, seen[-1].notes) == ("done", "org/repo/m-Q4_0", ())
    done = [progress.done for progress in seen if progress.status == "downloading"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, SIZE)
    sha256 = hashlib.sha256(DATA).hexdigest()
    assert {(one.file, one.sha256, one.total) for one in seen[1:-1]} == {("m-Q4_0.gguf", sha256, SIZE)}


def test_what_is_here_is_not_got_again(one_file: Hub, config: Config, place: Path) -> None:
    pull(NAME, config=config, memory_bytes=FREE)
    inode = place.stat().st_ino
    pull(NAME, config=config, memory_bytes=FREE)
    assert one_file.downloads == 1
    assert place.stat().st_ino == inode


@pytest.mark.parametrize("old", [DATA[:-1], DATA[:-1] + b"x"], ids=["another size", "other bytes"])
def test_a_file_that_changed_at_the_hub_replaces_the_old_one(
    one_file: Hub, config: Config, place: Path, old: bytes
) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(old)
    place.with_name(".m-Q4_0.gguf.0123456789ab.part").write_bytes(b"of an older one")
    pull(NAME, config=config, memory_bytes=FREE)
    assert place.read_bytes() == DATA
    assert left(config) == ["org", "org/repo", "org/repo/m-Q4_0.gguf"]


# ---- cuts


def test_twenty_cuts_in_one_pull(one_file: Hub, config: Config, place: Path) -> None:
    chance = random.Random(20)
    bounds = sorted(chance.sample(range(1, SIZE), 20))
    one_file.cuts = deque(stop - start for start, stop in zip([0, *bounds], bounds, strict=False))
    pull(NAME, config=config, memory_bytes=FREE)
    assert place.read_bytes() == DATA
    assert one_file.ranges == [f"bytes={start}-{SIZE - 1}" for start in (0, *bounds)]


def test_twenty_interrupts_at_random_bytes(one_file: Hub, config: Config, place: Path) -> None:
    chance = random.Random(3)
    one_file.cuts = deque()
    for number in range(20):
        stop = int(SIZE * (number + chance.random()) / 20)

        def interrupt(progress: PullProgress, stop: int = stop) -> None:
            if progress.done >= stop:
                raise KeyboardInterrupt

        one_file.cuts.append(max(1, stop - kept_bytes(place)))
        with pytest.raises(KeyboardInterrupt):
            pull(NAME, config=config, memory_bytes=FREE, on_progress=interrupt)
        assert not place.exists()
        assert kept_bytes(place) >= stop
        one_file.cuts.clear()
    assert pull(NAME, config=config, memory_bytes=FREE) == place
    assert place.read_bytes() == DATA
    assert left(config) == ["org", "org/repo", "org/repo/m-Q4_0.gguf"]


def kept_bytes(place: Path) -> int:
    return sum(file.stat().st_size for file in place.parent.glob(".m-Q4_0.gguf.*.part"))


def test_a_server_without_ranges_begins_again(one_file: Hub, config: Config, place: Path) -> None:
    one_file.knows_ranges = False
    one_file.cuts = deque([100_000, 50_000])
    pull(NAME, config=config, memory_bytes=FREE)
    assert place.read_bytes() == DATA


def test_a_server_without_ranges_that_always_cuts_ends(one_file: Hub, config: Config) -> None:
    one_file.knows_ranges = False
    one_file.cuts = deque([100_000] * 50)
    with pytest.raises(PullError, match=r"0\.1 MB of 0\.3 MB are kept, and the next pull goes on from there"):
        pull(NAME, config=config, memory_bytes=FREE)


def test_a_connection_that_brings_nothing_ends_the_pull_and_keeps_the_rest(
    one_file: Hub, config: Config, place: Path
) -> None:
    one_file.cuts = deque([200_000, 0, 0, 0])
    with pytest.raises(PullError, match=r"failed \(RemoteProtocolError\); 0\.2 MB of 0\.3 MB are kept"):
        pull(NAME, config=config, memory_bytes=FREE)
    assert kept_bytes(place) == 200_000
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA
    assert one_file.ranges[-1] == f"bytes=200000-{SIZE - 1}"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_busy_server_is_asked_again(one_file: Hub, config: Config, place: Path, status: int) -> None:
    one_file.statuses = deque([status])
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA


def test_large_files_come_in_spans(one_file: Hub, config: Config, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SPAN_BYTES", 128_000)
    pull(NAME, config=config, memory_bytes=FREE)
    assert place.read_bytes() == DATA
    assert one_file.ranges == ["bytes=0-127999", "bytes=128000-255999", f"bytes=256000-{SIZE - 1}"]


@pytest.mark.parametrize("kept", [DATA[:SIZE], DATA + b"more", b""], ids=["whole", "too long", "empty"])
def test_an_odd_partial_file_does_no_harm(one_file: Hub, config: Config, place: Path, kept: bytes) -> None:
    place.parent.mkdir(parents=True)
    part = place.with_name(f".m-Q4_0.gguf.{hashlib.sha256(DATA).hexdigest()[:12]}.part")
    part.write_bytes(kept)
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA
    assert one_file.downloads == (0 if kept == DATA else 1)


def test_damage_is_found_and_not_kept(one_file: Hub, config: Config, place: Path) -> None:
    one_file.hashes["m-Q4_0.gguf"] = "0" * 64
    with pytest.raises(PullError, match="arrived damaged: its SHA-256 is another; pull again"):
        pull(NAME, config=config, memory_bytes=FREE)
    assert left(config) == []


def test_a_file_without_a_hash_is_not_got(hub: Hub, config: Config) -> None:
    hub.files["org/repo"] = {"m-Q4_0.gguf": DATA}
    hub.hashes["m-Q4_0.gguf"] = "not a hash"
    with pytest.raises(PullError, match="no GGUF files"):
        pull(NAME, config=config, memory_bytes=FREE)


# ---- a full disk


def test_too_small_a_disk_is_told_before_anything_is_got(
    one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE))
    with pytest.raises(PullError, match=r"0\.3 MB are needed and 0\.3 MB are free in .*NBLLM_MODELS_DIR"):
        pull(NAME, config=config, memory_bytes=FREE)
    assert left(config) == []
    assert one_file.downloads == 0


def test_what_is_kept_needs_no_room_again(one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    one_file.cuts = deque([200_000, 0, 0, 0])
    with pytest.raises(PullError):
        pull(NAME, config=config, memory_bytes=FREE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=(64 << 20) + 100_000))
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA


@pytest.mark.parametrize("room", [0, 1, 100_000, SIZE, SIZE + 5, 2 * SIZE - 1])
def test_a_full_disk_leaves_nothing_behind(
    hub: Hub, config: Config, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    hub.files["org/repo"] = {f"m-0000{number}-of-00002.gguf": DATA for number in (1, 2)}
    fill_disk(monkeypatch, room)
    with pytest.raises(PullError, match=r"is full, and nothing was kept: make room") as refused:
        pull("hf:org/repo", config=config, memory_bytes=FREE)
    assert "\n" not in str(refused.value)
    assert left(config) == []
    monkeypatch.undo()


def test_a_disk_that_fails_otherwise_keeps_what_came(
    one_file: Hub, config: Config, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 1000, errno.EIO)
    with pytest.raises(PullError, match="cannot be written: Input/output error"):
        pull(NAME, config=config, memory_bytes=FREE)
    assert kept_bytes(place) == 1000


def test_a_folder_that_is_a_file_is_one_line(one_file: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PullError, match=r"cannot be written: .*; set NBLLM_MODELS_DIR"):
        pull(NAME, config=Config(models_dir=tmp_path / "file" / "models"), memory_bytes=FREE)


# ---- two at once


def test_two_pulls_of_one_model_get_it_once(one_file: Hub, config: Config, place: Path) -> None:
    one_file.released.clear()
    waits, paths = threading.Event(), []

    def watch(progress: PullProgress) -> None:
        if progress.status == "waiting":
            waits.set()
            one_file.released.set()

    threads = [
        threading.Thread(target=lambda: paths.append(pull(NAME, config=config, memory_bytes=FREE, on_progress=watch)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert waits.is_set()
    assert paths == [place, place]
    assert one_file.downloads == 1
    assert left(config) == ["org", "org/repo", "org/repo/m-Q4_0.gguf"]


def test_a_reader_of_the_old_file_keeps_it(one_file: Hub, config: Config, place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.write_bytes(b"old")
    with open(place, "rb") as file:
        pull(NAME, config=config, memory_bytes=FREE)
        assert file.read() == b"old"
    assert place.read_bytes() == DATA


# ---- refusals


def gated(hub: Hub) -> None:
    hub.gated.add("org/repo")


def private(hub: Hub) -> None:
    hub.private.add("org/repo")


def gone(hub: Hub) -> None:
    hub.files.clear()


def no_answer(hub: Hub) -> None:
    hub.endpoint = "http://127.0.0.1:9"


def log_in_page(hub: Hub) -> None:
    hub.api_body = b"<html>Log in to this network</html>"


def odd_json(hub: Hub) -> None:
    hub.api_body = b'{"id": "x", "siblings": [{"rfilename": 3, "lfs": {"size": "a", "sha256": 1, "pointerSize": 0}}]}'


def api_status(status: int) -> Callable[[Hub], None]:
    return lambda hub: setattr(hub, "api_status", status)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(
            gated, "org/repo is gated: accept its licence at http://.*/org/repo, and set HF_TOKEN", id="gated"
        ),
        pytest.param(private, "no repository org/repo at http.*, or it is private: .*HF_TOKEN", id="private"),
        pytest.param(gone, "no repository org/repo .*check the spelling", id="not there"),
        pytest.param(no_answer, r"cannot reach http://127.0.0.1:9 \(ConnectError\): .*HF_ENDPOINT", id="offline"),
        pytest.param(log_in_page, "answers, but not as the hub does: check the network", id="log-in page"),
        pytest.param(odd_json, "answers, but not as the hub does", id="odd JSON"),
        pytest.param(api_status(503), r"cannot reach .* \(HTTP 503\)", id="unavailable"),
        pytest.param(api_status(429), "too many requests from here: wait", id="too many"),
        pytest.param(api_status(418), r"refuses org/repo \(HTTP 418\)", id="teapot"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(
    one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Hub], None], says: str
) -> None:
    harm(one_file)
    monkeypatch.setenv("HF_ENDPOINT", one_file.endpoint)
    with pytest.raises(PullError, match=says) as refused:
        pull(NAME, config=config, memory_bytes=FREE)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert left(config) == []


def test_offline_mode_is_said(one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PullError, match="HF_HUB_OFFLINE is set"):
        pull(NAME, config=config, memory_bytes=FREE)
    assert one_file.asked == []


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HF_ENDPOINT", "hub.example", "HF_ENDPOINT: .* is not an http or https address"),
        ("HF_TOKEN", "hf_\u00e9secretOfThisTest", "HF_TOKEN: holds characters that no token has"),
    ],
)
def test_a_setting_that_cannot_be_used(
    one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ParameterError, match=says) as refused:
        pull(NAME, config=config, memory_bytes=FREE)
    assert "secretOfThisTest" not in str(refused.value)
    assert one_file.asked == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama3.2:1", "the closest names: llama3.2:1b"),
        ("no-such-model-at-all", "no model 'no-such-model-at-all' to pull: any other GGUF of the hub is hf:org/repo"),
        ("folder/file.gguf", "hf:org/repo"),
        ("someone/model:tag", r"Ollama's registry is switched off \(NBLLM_REGISTRY, registry\)"),
        ("ollama:gemma:7b", "registry is switched off"),
        ("lmstudio:gemma", "no model 'lmstudio:gemma' to pull"),
    ],
)
def test_an_unknown_short_name_asks_nobody(hub: Hub, config: Config, name: str, says: str) -> None:
    with pytest.raises(ModelNotFoundError, match=says):
        pull(name, config=config, memory_bytes=FREE)
    assert hub.asked == []
    assert pulled_path(name, config, memory_bytes=FREE) is None


def test_unknown_revision(one_file: Hub, config: Config) -> None:
    with pytest.raises(PullError, match="org/repo has no revision v9"):
        pull("https://huggingface.co/org/repo/tree/v9", config=config, memory_bytes=FREE)


# ---- tokens


@pytest.mark.parametrize("needs", [gated, private])
def test_a_token_opens_and_stays_at_the_hub(
    one_file: Hub,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    needs: Callable[[Hub], None],
) -> None:
    needs(one_file)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG)
    one_file.cuts = deque([10, 20])
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA
    assert one_file.tokens_at_storage == ["", "", ""]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("harm", [private, gated, no_answer, log_in_page, gone])
def test_no_error_has_the_token(
    one_file: Hub,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Hub], None],
) -> None:
    import traceback

    harm(one_file)
    monkeypatch.setenv("HF_ENDPOINT", one_file.endpoint)
    wrong = f"{TOKEN}Wrong"
    monkeypatch.setenv("HF_TOKEN", wrong)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ModelError) as refused:
        pull(NAME, config=config, memory_bytes=FREE)
    assert wrong not in "".join(traceback.format_exception(refused.value))
    assert wrong not in caplog.text


def test_a_wrong_token_is_said(one_file: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    private(one_file)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(PullError, match=r"refuses org/repo to your token \(HTTP 401\)"):
        pull(NAME, config=config, memory_bytes=FREE)


# ---- hostile repositories


def test_hostile_names_stay_in_the_repository(hub: Hub, config: Config, tmp_path: Path) -> None:
    hostile = ["../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "..\\evil.gguf", "C:evil.gguf", "nul.gguf"]
    hub.files["org/repo"] = {**dict.fromkeys(hostile, DATA), "fine.gguf": DATA, "../mmproj-f16.gguf": DATA}
    assert pull("hf:org/repo", config=config, memory_bytes=FREE).name == "fine.gguf"
    assert left(config) == ["org", "org/repo", "org/repo/fine.gguf"]
    for name in hostile:
        with pytest.raises(NbllmError):
            pull(f"hf:org/repo/{name}", config=config, memory_bytes=FREE)
    assert not list(tmp_path.rglob("evil*"))


def test_an_answer_longer_than_promised_is_cut(one_file: Hub, config: Config, place: Path) -> None:
    one_file.hashes["m-Q4_0.gguf"] = hashlib.sha256(DATA).hexdigest()
    one_file.sizes["m-Q4_0.gguf"] = SIZE
    one_file.files["org/repo"]["m-Q4_0.gguf"] = DATA * 2
    one_file.knows_ranges = False
    assert pull(NAME, config=config, memory_bytes=FREE).read_bytes() == DATA
