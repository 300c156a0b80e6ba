"""Tasks in processes of their own, with the real model."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from nbllm.errors import EngineError, ModelLoadError
from nbllm.session.tuning import process
from nbllm.store import model_info


@pytest.mark.model
def test_model_in_another_format_is_nearly_the_same(smollm2_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "q8.gguf"
    seen: list[tuple[int, int]] = []
    process.run(
        "quantize",
        lambda *step: seen.append(step),
        source=str(smollm2_path),
        target=str(target),
        kind="Q8_0",
        threads=2,
    )
    assert model_info(target, "q8").quantization == "Q8_0"
    assert seen[-1][0] == seen[-1][1] == len(seen)
    far = process.run("diverge", original=str(smollm2_path), other=str(target), kv_type="f16", threads=2)
    assert 0.0001 < far < 0.02


def test_file_that_is_no_model_is_an_error_of_one_line(tmp_path: Path) -> None:
    source = tmp_path / "bad.gguf"
    source.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelLoadError, match=r"bad\.gguf cannot be written as Q8_0: ."):
        process.run("quantize", source=str(source), target=str(tmp_path / "out"), kind="Q8_0", threads=1)


def test_process_that_ends_says_how() -> None:
    with pytest.raises(EngineError, match="its process ended with exit code 1: KeyError: 'nothing'"):
        process.run("nothing")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_interrupt_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    begin = process._started

    def remembered(*args: object) -> object:
        child = begin(*args)  # type: ignore[arg-type]
        started.append(child.pid)
        child.send_signal(signal.SIGSTOP)  # it will never answer
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        return child

    monkeypatch.setattr(process, "_started", remembered)
    with pytest.raises(KeyboardInterrupt):
        process.run("nothing")
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
