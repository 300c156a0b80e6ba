"""What `jupyter nbllm status` and `jupyter nbllm models` say: what runs on this machine, and what could."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from nbllm.config import Config
from nbllm.core import ModelInfo
from nbllm.core.sizes import size_text
from nbllm.runner import records
from nbllm.runner.records import Record

_ANSWER_WITHIN_S = 2.0
_MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """An engine that a process of this user holds.

    Attributes:
        kind: "kernel" or "runner".
        created: seconds since 1970.
    """

    name: str
    kind: str
    pid: int
    context_length: int
    max_sequences: int
    path: str
    created: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """A Jupyter server of this user.

    Attributes:
        kind: "nbllm" run alone, or "notebook".
        state: "serves /v1", or why it does not.
        models: that its /v1 lists.
    """

    url: str
    kind: str
    pid: int
    port: int
    state: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model that has a name.

    Attributes:
        size_bytes: 0 for another server's.
        note: that it is the default, what a preset is made of, or where it is served.
    """

    name: str
    size_bytes: int = 0
    quantization: str = ""
    context_length: int = 0
    problem: str = ""
    note: str = ""


def engines(folder: Path) -> list[EngineState]:
    """Those with a record in the folder whose process lives, the newest first."""
    return [_engine(record) for record in records.find(folder)]


def servers() -> list[ServerState]:
    """Those that Jupyter knows of; each is asked."""
    from jupyter_server.serverapp import list_running_servers

    return sorted((_server(info) for info in list_running_servers()), key=lambda server: server.url)


def models(config: Config) -> list[ModelState]:
    """Every name that can be asked for."""
    from nbllm.store.catalog import list_models

    default, infos = config.unaliased("default"), list_models(config)
    bases = {info.path: info.name for info in infos if info.source != "preset"}
    found = [
        ModelState(
            name=info.name,
            size_bytes=info.size_bytes,
            quantization=info.quantization,
            context_length=info.context_length,
            problem=info.problem,
            note="; ".join(filter(None, (_made_of(info, bases), "default" if _is_called(info, default) else ""))),
        )
        for info in infos
    ]
    others = config.endpoints.items()
    others_models = (ModelState(name=name, note=f"at {endpoint.base_url}") for name, endpoint in others)
    aliases = (ModelState(name=name, note=f"means {config.unaliased(name)}") for name in config.aliases)
    return [*found, *others_models, *aliases]


def _made_of(info: ModelInfo, bases: Mapping[str, str]) -> str:
    """Args: bases: the names of models that are no presets, by their paths."""
    is_well = info.source == "preset" and not info.problem  # else its path is that of its own file
    return f"made of {bases.get(info.path, Path(info.path).name)}" if is_well else ""


def _is_called(info: ModelInfo, name: str) -> bool:
    return name == info.name or (name == info.path and info.source != "preset")


# ---- as text


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of plain text, as wide as they must be."""
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    joined = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in joined) + "\n"


def json_text(states: object) -> str:
    return msgspec.json.format(msgspec.json.encode(states), indent=2).decode() + "\n"


def engines_text(found: Sequence[EngineState]) -> str:
    if not found:
        return "No model is loaded.\n"
    headings = ("MODEL", "IN", "PID", "CONTEXT", "AT A TIME", "FILE")
    return table(headings, [(e.name, e.kind, e.pid, e.context_length, e.max_sequences, e.path) for e in found])


def servers_text(found: Sequence[ServerState]) -> str:
    if not found:
        return "No server runs; start one with  jupyter nbllm\n"
    headings = ("SERVER", "KIND", "PID", "STATE", "MODELS")
    return table(headings, [(s.url, s.kind, s.pid, s.state, shortened(s.models)) for s in found])


def models_text(found: Sequence[ModelState]) -> str:
    if not found:
        return 'There are no models; get one with  pip install "nbllm[smollm2]"\n'
    headings = ("NAME", "SIZE", "QUANTIZATION", "CONTEXT", "NOTE")
    return table(headings, [_model_row(model) for model in found])


def _model_row(model: ModelState) -> tuple[str, ...]:
    return (
        model.name,
        size_text(model.size_bytes) if model.size_bytes else "-",
        model.quantization or "-",
        f"{model.context_length}" if model.context_length else "-",
        "; ".join(part for part in (model.note, model.problem and f"problem: {model.problem}") if part),
    )


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# ---- one engine, one server


def _engine(record: Record) -> EngineState:
    return EngineState(
        name=record.name,
        kind=record.kind,
        pid=record.pid,
        context_length=record.context_length,
        max_sequences=record.max_sequences,
        path=record.path,
        created=record.created,
    )


def _server(info: dict[str, Any]) -> ServerState:
    url = str(info.get("url", ""))
    state, names = _asked(url, str(info.get("token") or ""))
    return ServerState(
        url=url,
        kind="nbllm" if info.get("nbllm") else "notebook",
        pid=int(info["pid"]),
        port=int(info.get("port") or 0),
        state=state,
        models=names,
    )


def _asked(url: str, token: str) -> tuple[str, tuple[str, ...]]:
    """Whether its /v1 is there, and the models that it lists."""
    if urlsplit(url).scheme not in ("http", "https"):
        return "on a socket: not asked", ()
    try:
        status, body = get_json(f"{url.rstrip('/')}/v1/health")
        if status != 200 or not isinstance(body, dict) or body.get("status") != "ok":
            return "no /v1", ()
        status, body = get_json(f"{url.rstrip('/')}/v1/models", token)
    except (OSError, HTTPException, ValueError) as exc:
        return f"no answer ({type(exc).__name__})", ()
    return "serves /v1", _names(body) if status == 200 else ()


def _names(body: object) -> tuple[str, ...]:
    entries = body.get("data") if isinstance(body, dict) else None
    return tuple(str(entry["id"]) for entry in entries or () if isinstance(entry, dict) and "id" in entry)


def get_json(url: str, token: str = "", *, timeout_s: float = _ANSWER_WITHIN_S) -> tuple[int, object]:
    """The status and the body, None if that is no JSON. Goes through no proxy and follows nobody elsewhere.

    Raises:
        OSError, HTTPException, ValueError: there is no answer, or `url` is none.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_s)
    try:
        connection.request("GET", parts.path or "/", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        data = answer.read(_MAX_ANSWER_BYTES)
    finally:
        connection.close()
    try:
        return answer.status, json.loads(data)
    except (ValueError, RecursionError):
        return answer.status, None


def _connection(scheme: str, host: str, port: int | None, timeout_s: float) -> HTTPConnection:
    if scheme != "https":
        return HTTPConnection(host, port, timeout=timeout_s)
    context = ssl.create_default_context()
    context.check_hostname = False  # a server of this user on this machine, which signs for itself
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, port, timeout=timeout_s, context=context)
