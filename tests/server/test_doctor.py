from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nbllm.engine import machine
from nbllm.server import doctor
from nbllm.server.command import main
from nbllm.server.doctor import Finding, Report
from nbllm.server.keys import KeyStore

PINNED = "0.3.36"
BUILD = "CPU : AVX2 = 1 | F16C = 1 | FMA = 1 | DOTPROD = 1 | AMX_INT8 = 0 | OPENMP = 1 |"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "NBLLM_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("NBLLM_KEYS_FILE", str(tmp_path / "keys.json"))


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what llama.cpp's process reports."""

    def report(**values: object) -> None:
        good = {"pinned": PINNED, "version": PINNED, "build": BUILD}
        monkeypatch.setattr(doctor, "_report", lambda: Report(**{**good, **values}))  # type: ignore[arg-type]

    report()
    return report


@pytest.fixture
def taken_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        yield taken.getsockname()[1]


def _found(topic: str) -> list[Finding]:
    return [finding for finding in doctor.findings() if finding.topic == topic]


def _worst(topic: str) -> Finding:
    found = _found(topic)
    return max(found, key=lambda finding: ["ok", "warning", "problem"].index(finding.level))


# ---- llama.cpp


@pytest.mark.model
def test_llama_cpp_is_asked_in_a_process_of_its_own() -> None:
    found = _found("llama.cpp")
    assert found[0] == Finding("ok", "llama.cpp", f"llama-cpp-python {PINNED}")
    assert "built" in found[1].text
    assert not [name for name in sys.modules if name.startswith("nbllm.llama.report")]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param("import os; os.abort()", "a process that loads it is killed by signal 6", id="crash"),
        pytest.param("raise SystemExit('no such file')", "ends with exit code 1: no such file", id="failure"),
    ],
)
def test_llama_cpp_that_ends_its_process(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    monkeypatch.setattr(doctor, "_RUN_REPORT", code)
    finding = _worst("llama.cpp")
    assert finding.level == "problem"
    assert said in finding.text
    assert finding.advice.startswith('CMAKE_ARGS="-DGGML_NATIVE=on" pip install --force-reinstall')


def test_llama_cpp_that_cannot_be_used(reported: Callable[..., None]) -> None:
    reported(problem='llama.cpp cannot be loaded; reinstall it: pip install "llama-cpp-python"')
    assert _worst("llama.cpp").level == "problem"
    assert _worst("llama.cpp").advice == ""


def test_llama_cpp_of_another_release(reported: Callable[..., None]) -> None:
    reported(version="0.3.20")
    finding = _worst("llama.cpp")
    assert (finding.level, finding.advice) == ("warning", f'pip install "llama-cpp-python=={PINNED}"')


def test_llama_cpp_without_what_the_processor_has(
    reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: frozenset({"avx2", "fma", "sse"}))
    reported(build="CPU : SSE3 = 1 | FMA = 1 | AVX2 = 0")
    finding = _worst("llama.cpp")
    assert finding.level == "warning"
    assert "built without AVX2, which this processor has" in finding.text
    assert "-DGGML_NATIVE=on" in finding.advice


# ---- the machine


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        pytest.param(
            "Apple's GPU", "--extra-index-url https://abetlen.github.io/llama-cpp-python/whl/metal", id="Apple"
        ),
        pytest.param(
            "an NVIDIA GPU", "--extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cu123", id="NVIDIA"
        ),
        pytest.param("an AMD GPU", "-DGGML_HIP=on", id="AMD"),
        pytest.param("a GPU with Vulkan", "-DGGML_VULKAN=on", id="Vulkan"),
    ],
)
def test_gpu_that_is_not_used(
    reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kind: str, advice: str
) -> None:
    monkeypatch.setattr(doctor, "_gpu_kind", lambda: kind)
    monkeypatch.setattr(doctor, "_cuda_wheel", lambda: "cu123")
    (finding,) = _found("GPU")
    assert (finding.level, finding.text) == ("warning", f"{kind} is here, and llama.cpp is built without it")
    assert advice in finding.advice
    assert f"llama-cpp-python=={PINNED}" in finding.advice


@pytest.mark.parametrize(("kind", "has_gpu"), [(None, False), ("an NVIDIA GPU", True)], ids=["none", "used"])
def test_gpu_that_is_well(
    reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch, kind: str | None, has_gpu: bool
) -> None:
    monkeypatch.setattr(doctor, "_gpu_kind", lambda: kind)
    reported(has_gpu=has_gpu)
    assert [finding.level for finding in _found("GPU")] == ["ok"]


@pytest.mark.parametrize(
    ("said", "wheel"),
    [
        ("CUDA Version: 12.2 ", "cu122"),
        ("CUDA Version: 13.0 ", "cu124"),
        ("CUDA Version: 11.8", "cu121"),
        ("", "cu124"),
    ],
    ids=["between", "newer", "older", "silent"],
)
def test_wheel_is_one_that_the_driver_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, wheel: str
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '| {said} |'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert doctor._gpu_kind() == "an NVIDIA GPU"
    assert doctor._cuda_wheel() == wheel


def test_little_memory(reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 5 * 10**8)
    finding = _worst("memory")
    assert (finding.level, finding.text.split(" are")[0]) == ("warning", "500 MB")


# ---- what is set up


def test_settings_that_are_broken(
    reported: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("max_sequence = 3")
    monkeypatch.setenv("NBLLM_CONFIG", str(file))
    finding = _worst("settings")
    assert (finding.level, finding.text) == (
        "problem",
        f"max_sequence in {file}: is not an option; did you mean max_sequences?",
    )
    assert not _found("models")
    assert _found("ports")


def test_models(reported: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "broken.gguf").write_bytes(b"nonsense")
    monkeypatch.setenv("NBLLM_MODELS_DIR", str(folder))
    monkeypatch.setenv("NBLLM_DEFAULT_MODEL", "nothing-like-it")
    found = _found("models")
    assert found[0] == Finding("ok", "models", str(folder))
    assert "broken: " in next(finding for finding in found if finding.level == "warning").text
    problem = _worst("models")
    assert problem.level == "problem"
    assert "no model 'nothing-like-it'" in problem.text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_folder_that_others_may_write_to(reported: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "nbllm_runtime_dir"
    folder.mkdir()
    folder.chmod(0o777)
    assert _worst("running").text == f"runtime_dir: others may write to {folder}: chmod 700 {folder}"


def test_looking_makes_nothing(reported: Callable[..., None], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    list(doctor.findings())
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such rights")
def test_keys_that_others_may_read(reported: Callable[..., None], tmp_path: Path) -> None:
    KeyStore(tmp_path / "keys.json").create("laptop")
    assert _worst("keys") == Finding("ok", "keys", f"1 in {tmp_path / 'keys.json'}")
    (tmp_path / "keys.json").chmod(0o644)
    finding = _worst("keys")
    assert finding.level == "problem"
    assert "chmod 600" in finding.text


# ---- Jupyter


@pytest.mark.parametrize(("enabled", "level"), [(True, "ok"), (False, "warning")])
def test_extension(reported: Callable[..., None], tmp_path: Path, enabled: bool, level: str) -> None:
    folder = tmp_path / "jupyter_config_path" / "jupyter_server_config.d"
    folder.mkdir(parents=True)
    (folder / "nbllm.json").write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"nbllm": enabled}}}))
    finding = _worst("extension")
    assert finding.level == level
    assert finding.advice == ("" if enabled else "jupyter server extension enable nbllm")


def test_port_that_is_taken(reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_PORT", taken_port)
    finding = _worst("ports")
    assert finding.level == "warning"
    assert finding.text.startswith(f"{taken_port} is taken by ")
    assert finding.advice == f"jupyter nbllm --port {taken_port + 1}"


# ---- the whole


def test_check_that_fails_is_a_finding(reported: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Iterator[Finding]:
        raise RuntimeError("what nobody foresaw")
        yield

    monkeypatch.setattr(doctor, "_machine", fail)
    assert _found("machine") == [
        Finding("warning", "machine", "could not be looked at: RuntimeError: what nobody foresaw")
    ]


def test_text_has_columns_and_what_to_do() -> None:
    found = [Finding("ok", "keys", "none"), Finding("problem", "llama.cpp", "it is gone", "get it")]
    assert doctor.text(found).splitlines() == [
        "ok       keys       none",
        "problem  llama.cpp  it is gone",
        "                    -> get it",
        "",
        "1 problem",
    ]
    assert doctor.text(found[:1]).endswith("\nAll is well.\n")


@pytest.mark.parametrize(("problem", "code"), [("", 0), ("it is gone", 1)], ids=["well", "problem"])
def test_doctor_says_how_it_is(
    reported: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: str,
    code: int,
) -> None:
    monkeypatch.setattr(doctor, "_OF_SETTINGS", {})  # a machine without models has a problem
    reported(problem=problem)
    assert main(["doctor"]) == code
    assert ("problem  llama.cpp" in capsys.readouterr().out) is bool(code)
    assert main(["doctor", "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert {"level", "topic", "text", "advice"} == set(found[0])
