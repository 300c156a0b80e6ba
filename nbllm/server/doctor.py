"""`jupyter nbllm doctor`: what of this installation works, what does not, and what to do about it.

Every check only looks; none loads llama.cpp into this process, and whatever goes wrong in one is a finding.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from nbllm._version import __version__
from nbllm.config import Config, load_config
from nbllm.config.sources import site_file, user_file
from nbllm.core.sizes import size_text
from nbllm.errors import NbllmError
from nbllm.server import status
from nbllm.server.alone import DEFAULT_PORT

Level = Literal["ok", "warning", "problem"]

_REPORT_WITHIN_S = 60.0
_TOOL_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 0.5
_LITTLE_MEMORY_BYTES = 10**9
_NOTEBOOK_PORT = 8888
_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"
_CUDA_WHEELS = (121, 122, 123, 124)  # an older one runs with a newer driver, not the other way round
_CPU_FLAGS = {"avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "asimddp": "DOTPROD"}  # Linux's names and llama.cpp's
_RUN_REPORT = """
import runpy, sys
if sys.argv[1] not in sys.path:  # so that it is this very nbllm
    sys.path.insert(0, sys.argv[1])
runpy.run_module("nbllm.llama.report", run_name="__main__")
"""
_COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: what to do; "" where nothing needs to be done.
    """

    level: Level
    topic: str
    text: str
    advice: str = ""


class Report(msgspec.Struct):
    """What `python -m nbllm.llama.report` prints."""

    pinned: str
    version: str = ""
    build: str = ""
    has_gpu: bool = False
    problem: str = ""


def findings() -> Iterator[Finding]:
    """Look at everything; each finding comes as soon as it is known."""
    yield from _checked("versions", _versions)
    report = cache(_report)
    yield from _checked("llama.cpp", lambda: _llama(report()))
    yield from _checked("GPU", lambda: _gpu(report()))
    yield from _checked("compiler", _compiler)
    yield from _checked("machine", _machine)
    yield from _checked("settings", _settings)
    with suppress(NbllmError):  # which is a finding by now
        config = load_config()
        for topic, check in _OF_SETTINGS.items():
            yield from _checked(topic, partial(check, config))
    yield from _checked("extension", _extension)
    yield from _checked("ports", _ports)


def text(found: Sequence[Finding]) -> str:
    """Columns, and below each that is not well what to do."""
    width = max((len(finding.topic) for finding in found), default=0)
    lines = []
    for finding in found:
        lines.append(f"{finding.level:<8} {finding.topic:<{width}}  {finding.text}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  -> {finding.advice}")
    return "\n".join([*lines, "", _summary(found)]) + "\n"


def _summary(found: Sequence[Finding]) -> str:
    counts = [(sum(finding.level == level for finding in found), level) for level in ("problem", "warning")]
    said = [f"{count} {level}{'s' if count > 1 else ''}" for count, level in counts if count]
    return ", ".join(said) or "All is well."


def _checked(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except NbllmError as exc:
        yield Finding("problem", topic, str(exc))
    except Exception as exc:  # noqa: BLE001  # somebody looks for help here: one check must not hide the others
        yield Finding("warning", topic, f"could not be looked at: {type(exc).__name__}: {exc}")


# ---- what is installed


def _versions() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.machine()}"
    yield Finding(
        "ok",
        "versions",
        f"nbllm {__version__}, Python {platform.python_version()} ({sys.executable}), "
        f"jupyter_server {version('jupyter_server')}, {system}",
    )


def _report() -> Report:
    """What llama.cpp says, from a process of its own: a build for another processor ends the one that loads it."""
    command = [sys.executable, "-P", "-c", _RUN_REPORT, os.fspath(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, timeout=_REPORT_WITHIN_S, check=False)
    if done.returncode:
        return Report(pinned="", problem=f"a process that loads it {_ending(done.returncode, done.stderr)}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Report)


def _ending(code: int, stderr: bytes) -> str:
    last = (stderr.decode(errors="replace").strip().splitlines() or [""])[-1][:300]
    how = f"is killed by signal {-code}" if code < 0 else f"ends with exit code {code}"
    return f"{how}: {last}" if last else how


def _llama(report: Report) -> Iterator[Finding]:
    if report.problem:
        advice = "" if report.pinned else _rebuild(report, "-DGGML_NATIVE=on")  # our own errors hold theirs
        yield Finding("problem", "llama.cpp", report.problem, advice)
        return
    if report.version == report.pinned:
        yield Finding("ok", "llama.cpp", f"llama-cpp-python {report.version}")
    else:
        wanted = f"it is {report.version}, and nbllm was made for {report.pinned}"
        yield Finding("warning", "llama.cpp", wanted, f'pip install "{_requirement(report)}"')
    if missing := [ours for theirs, ours in _CPU_FLAGS.items() if theirs in _cpu_flags() and ours not in _able(report)]:
        lost = f"built without {', '.join(missing)}, which this processor has: {report.build}"
        yield Finding("warning", "llama.cpp", lost, _rebuild(report, "-DGGML_NATIVE=on"))
    else:
        yield Finding("ok", "llama.cpp", f"built for {', '.join(_able(report)) or report.build}")


def _able(report: Report) -> list[str]:
    return [name for name, value in re.findall(r"(\w+) = (\d+)", report.build) if int(value)]


@cache
def _cpu_flags() -> frozenset[str]:
    with suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, flags = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(flags.split())
    return frozenset()


def _rebuild(report: Report, option: str) -> str:
    install = "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python"
    return f'CMAKE_ARGS="{option}" {install} "{_requirement(report)}"'


def _requirement(report: Report) -> str:
    return f"llama-cpp-python=={report.pinned}" if report.pinned else "llama-cpp-python"


# ---- the machine


def _gpu(report: Report) -> Iterator[Finding]:
    kind = _gpu_kind()
    if report.has_gpu:
        yield Finding("ok", "GPU", "llama.cpp uses it")
    elif kind is None:
        yield Finding("ok", "GPU", "none was found; models run on the processor")
    else:
        yield Finding("warning", "GPU", f"{kind} is here, and llama.cpp is built without it", _gpu_advice(report, kind))


def _gpu_kind() -> str | None:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple's GPU"
    if shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists():
        return "an NVIDIA GPU"
    if shutil.which("rocminfo") or Path("/dev/kfd").exists():
        return "an AMD GPU"
    if shutil.which("vulkaninfo") and any(Path("/dev/dri").glob("renderD*")):
        return "a GPU with Vulkan"
    return None


def _gpu_advice(report: Report, kind: str) -> str:
    if kind in ("Apple's GPU", "an NVIDIA GPU"):
        wheels = "metal" if kind == "Apple's GPU" else _cuda_wheel()
        install = f'pip install --force-reinstall --no-deps "{_requirement(report)}"'
        return f"{install} --extra-index-url {_WHEELS}/{wheels}"
    return _rebuild(report, "-DGGML_HIP=on" if kind == "an AMD GPU" else "-DGGML_VULKAN=on")


def _cuda_wheel() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=_TOOL_WITHIN_S, check=False)
        if match := re.search(r"CUDA Version: (\d+)\.(\d+)", said.stdout):
            able = int(match[1]) * 10 + int(match[2])
            return f"cu{max((wheel for wheel in _CUDA_WHEELS if wheel <= able), default=_CUDA_WHEELS[0])}"
    return f"cu{_CUDA_WHEELS[-1]}"


def _compiler() -> Iterator[Finding]:
    found = next(filter(None, map(shutil.which, _COMPILERS)), None)
    yield Finding("ok", "compiler", found or "no C++ compiler; it is needed only to build llama.cpp another way")


def _machine() -> Iterator[Finding]:
    from nbllm.engine.machine import available_memory, usable_cores

    free_bytes = available_memory()
    yield Finding("ok", "cores", f"{usable_cores()} to compute with; the machine counts {os.cpu_count()} processors")
    is_little = free_bytes < _LITTLE_MEMORY_BYTES
    yield Finding(
        "warning" if is_little else "ok",
        "memory",
        f"{size_text(free_bytes)} are free, as far as this process may take them",
        "end what you do not use, or raise the container's limit" if is_little else "",
    )


# ---- what is set up


def _settings() -> Iterator[Finding]:
    for path in (site_file(), user_file()):
        yield Finding("ok", "settings", f"{path} {'is read' if path.exists() else 'does not exist'}")
    load_config()


def _models(config: Config) -> Iterator[Finding]:
    found = status.models(config)
    for folder in (config.models_dir, *config.models_dirs):
        yield Finding(
            "ok", "models", f"{folder}{'' if folder.is_dir() else ' does not exist yet; put GGUF files there'}"
        )
    for model in found:
        if model.problem:
            yield Finding("warning", "models", f"{model.name}: {model.problem}", "replace or delete the file")
    usable = [model.name for model in found if not model.problem]
    if usable:
        yield Finding("ok", "models", f"{len(usable)} can be used: {status.shortened(usable)}")
    yield from _default_model(config, usable)


def _default_model(config: Config, usable: Sequence[str]) -> Iterator[Finding]:
    from nbllm.store.names import resolve

    meant = config.unaliased("default")
    if meant not in usable:
        resolve(meant, config)  # says what to do
    yield Finding("ok", "default model", meant)


def _runtime(config: Config) -> Iterator[Finding]:
    from nbllm.runner import records

    if not config.runtime_dir.exists():
        yield Finding("ok", "running", f"{config.runtime_dir} is made with the first model")
        return
    records.prepare(config.runtime_dir)  # it exists, so this only looks
    engines = status.engines(config.runtime_dir)
    yield Finding("ok", "running", f"{config.runtime_dir} holds {len(engines)} records of loaded models")
    for engine in engines:
        yield Finding(
            "ok", "running", f"{engine.name} in {engine.kind} {engine.pid}, context {engine.context_length:,}"
        )


def _keys(config: Config) -> Iterator[Finding]:
    from nbllm.server.keys import KeyStore

    count = len(KeyStore(config.keys_file).list())  # which also looks who else may read it
    yield Finding(
        "ok", "keys", f"{count} in {config.keys_file}" if count else "none; only  jupyter nbllm keys  makes any"
    )


_OF_SETTINGS: dict[str, Callable[[Config], Iterator[Finding]]] = {
    "models": _models,
    "running": _runtime,
    "keys": _keys,
}


# ---- Jupyter


def _extension() -> Iterator[Finding]:
    from jupyter_core.paths import jupyter_config_path
    from jupyter_server.extension.config import ExtensionConfigManager

    manager = ExtensionConfigManager(read_config_path=jupyter_config_path())
    enabled = manager.get_jpserver_extensions().get("nbllm")  # type: ignore[no-untyped-call]
    if enabled:
        yield Finding("ok", "extension", "notebook servers serve /v1")
    elif enabled is None:
        advice = "pip install --force-reinstall --no-deps nbllm  (not with -e, which leaves Jupyter's files out)"
        yield Finding("warning", "extension", "notebook servers do not know of it, and have no /v1", advice)
    else:
        yield Finding("warning", "extension", "it is disabled", "jupyter server extension enable nbllm")


def _ports() -> Iterator[Finding]:
    running = {server.port: server for server in status.servers()}
    for port in (DEFAULT_PORT, _NOTEBOOK_PORT):
        if port in running:
            server = running[port]
            yield Finding("ok", "ports", f"{port}: {server.kind} server {server.pid}, {server.state}")
        elif not _is_taken(port):
            yield Finding("ok", "ports", f"{port} is free")
        elif port == DEFAULT_PORT:
            advice = f"jupyter nbllm --port {port + 1}"
            yield Finding("warning", "ports", f"{port} is taken by {_listener(port)}", advice)
        else:
            yield Finding("ok", "ports", f"{port} is taken by {_listener(port)}; Jupyter takes another")


def _is_taken(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_CONNECT_WITHIN_S):
        return True
    return False


def _listener(port: int) -> str:
    """The program that listens; the system may not tell."""
    import psutil

    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} ({connection.pid})"
    return "another program"
