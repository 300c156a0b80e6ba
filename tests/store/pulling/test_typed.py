from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

import nbllm
from nbllm.config import Config
from nbllm.store.pulling import PullProgress, lock
from nbllm.store.pulling.typed import pull_typed, suggestions
from tests.store import gguf_writer as g
from tests.store.hub import Hub
from tests.store.pulling.registry import Registry, digest

DATA = bytes(300_000)


def test_a_bar_and_the_name_of_the_model(hub: Hub, config: Config) -> None:
    hub.files["org/repo"] = {"m-Q4_0.gguf": DATA, "mmproj-F16.gguf": DATA}
    shown = io.StringIO()
    said = pull_typed("hf:org/repo", config=config, memory_bytes=1 << 40, file=shown)
    assert said == f"org/repo/m-Q4_0 is here: {config.models_dir / 'org' / 'repo' / 'm-Q4_0.gguf'}"
    for file in ("m-Q4_0.gguf", "mmproj-F16.gguf"):
        assert f"{file}: 100%" in shown.getvalue()
    assert "300k/300k" in shown.getvalue()


def test_an_interrupt_says_what_is_kept(hub: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbllm.store.pulling import typed

    hub.files["org/repo"] = {"m-Q4_0.gguf": bytes(2_000_000)}
    hub.cuts = deque([1_000_000])
    whole = typed._Bar.show

    def show(bar: typed._Bar, progress: PullProgress) -> None:
        whole(bar, progress)
        if progress.done >= 1_000_000:
            raise KeyboardInterrupt

    monkeypatch.setattr(typed._Bar, "show", show)
    shown = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        pull_typed("hf:org/repo", config=config, memory_bytes=1 << 40, file=shown)
    assert "interrupted; 1 MB of 2 MB of m-Q4_0.gguf are kept, and the next pull goes on" in shown.getvalue()
    monkeypatch.setattr(typed._Bar, "show", whole)
    again = io.StringIO()
    pull_typed("hf:org/repo", config=config, memory_bytes=1 << 40, file=again)
    assert hub.ranges[-1].startswith("bytes=1000000-")


def test_an_interrupt_before_the_first_byte(hub: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbllm.store.pulling import typed

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typed, "pull", interrupted)
    shown = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        pull_typed("hf:org/repo", config=config, memory_bytes=1 << 40, file=shown)
    assert shown.getvalue() == "interrupted; pull again to go on\n"


def test_waiting_is_said_once(hub: Hub, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["org/repo"] = {"m-Q4_0.gguf": DATA}
    is_locked, looks = lock._is_locked, []

    def third_time(handle: int) -> bool:
        looks.append(handle)
        return len(looks) > 2 and is_locked(handle)

    monkeypatch.setattr(lock, "_is_locked", third_time)
    shown = io.StringIO()
    pull_typed("hf:org/repo", config=config, memory_bytes=1 << 40, file=shown)
    assert shown.getvalue().count("another pull of these files is under way") == 1


def test_a_model_of_the_registry_says_what_it_lacks(registry: Registry, config: Config) -> None:
    registry.add("library/m:latest", ("model", g.tiny_model()), ("template", b"{{ .Prompt }}"))
    shown = io.StringIO()
    config = Config(models_dir=config.models_dir, registry=registry.address)
    said = pull_typed("m", config=config, memory_bytes=1 << 40, file=shown)
    assert said.splitlines() == [
        f"m is here: {config.models_dir / '.blobs' / digest(g.tiny_model()).replace(':', '-')}",
        "its template is in Ollama's language, which is not used: the model file's own chat template is",
    ]
    assert "m: 100%" in shown.getvalue()


def test_suggestions_name_the_registry_that_is_asked(config: Config) -> None:
    last = "Any other model of Ollama's registry: its name there, such as someone/model:7b"
    assert last not in suggestions(config, 4 * 10**9)
    asked = Config(models_dir=config.models_dir, registry="https://registry.example")
    assert suggestions(asked, 4 * 10**9).endswith(last)


def test_suggestions_fit(config: Config) -> None:
    table = suggestions(config, 4 * 10**9)
    assert "smollm2:135m" in table
    assert "gemma:7b" not in table
    assert "apache-2.0" in table
    assert "gemma:7b" in suggestions(config, 16 * 10**9)
    assert suggestions(config, 10**8).startswith("no model of the table fits into the memory of this machine (100 MB)")


def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    script = "import json, sys, nbllm.store.pulling.typed, nbllm.server.command; print(json.dumps(list(sys.modules)))"
    folder = Path(nbllm.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"huggingface_hub", "httpx2", "httpx", "tqdm", "psutil", "tomllib", "llama_cpp"}
