"""Answers kept on disk, so that a cell that asks the same again has its answer at once, without a model.

    FOLDER/1f/a0/1fa0...64 digits.json     one answer; the file's time is when it was last used

Processes may share a folder: a file is replaced in one piece, and one that is not right is as good as not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nbllm.chat import constraints
from nbllm.chat.options import checked_options
from nbllm.chat.toolprompt import described
from nbllm.core import Constraint, GenerateRequest, Message, SamplingParams
from nbllm.session.response import Response
from nbllm.session.stored import DamagedError, dumped, is_storable, loaded
from nbllm.store.files import replace_file

MAX_FILE_BYTES = 16 << 20
MAX_BYTES = 1 << 30
_TRIMMED = 0.9
"""Part of the bound that is left when it was passed, so that the next answers need not be made room for."""
_PUTS_A_CHECK = 64
_ABANDONED_S = 3600.0
_KEY = re.compile(r"[0-9a-f]{64}")
_PAIR = "[0-9a-f]" * 2
_UNFINISHED = ".unfinished"
_logger = logging.getLogger("nbllm.session")


def key(*, file_hash: str, request: GenerateRequest, version: str) -> str:
    """What says that two requests have the same answer: the model, the prompt, and all that shapes the text.

    How long to wait and what to reuse do not; nor do the ids that earlier answers were generated as, which a reopened
    notebook no longer has.

    Args:
        version: of what computes the answer, as `versions` says.

    Raises:
        ParameterError: the template's options are not plain data.
    """
    whole = {"file": file_hash, "version": version, **_prompt(request), **_shape(request)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode("ascii")).hexdigest()


def versions() -> str:
    """Of nbllm and of llama.cpp's binding, which is not loaded for it."""
    import importlib.metadata

    from nbllm._version import __version__

    try:
        binding = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        binding = "none"
    return f"nbllm {__version__}, llama-cpp-python {binding}"


def default_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("nbllm") / "answers"


class AnswerCache:
    """The answers of one folder. Safe on any thread, and beside other processes.

    Args:
        folder: made with the first answer.
        max_bytes: of all answers; when they are more, those that were not used for longest go. Looked at rarely, so
            it may be passed for a while.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._puts = 0

    def get(self, key: str, constraint: Constraint | None = None) -> Response | None:
        """The answer under this key, None if there is none that is right.

        Args:
            constraint: of the request; what the answer's text means is parsed by it.
        """
        found = self.find(key, constraint)
        return None if found is None else found[0]

    def find(self, key: str, constraint: Constraint | None = None) -> tuple[Response, Mapping[str, Any]] | None:
        """`get` with the notes that were put with the answer."""
        path = self._path(key)
        try:
            response, notes = loaded(key, _read(path))
        except FileNotFoundError:
            return None
        except (OSError, DamagedError) as error:
            _logger.debug("%s is left out: %s", path, error or "damaged")
            return None
        with suppress(OSError):
            os.utime(path)
        if constraint is not None and response.finish_reason == "stop":
            response = replace(response, parsed=constraints.parse(constraint, response.text))
        return response, notes

    def put(self, key: str, response: Response, notes: Mapping[str, Any] | None = None) -> None:
        """Keep an answer, if it is whole and the only one to its prompt. A folder that refuses it costs only time.

        Args:
            notes: what JSON can hold, given back by `find`.
        """
        if not is_storable(response) or response.tool_calls:  # the file has no place for calls
            return
        path, data = self._path(key), dumped(key, response, notes or {})
        if len(data) > MAX_FILE_BYTES:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, data, suffix=_UNFINISHED)
            if self._puts % _PUTS_A_CHECK == 0:
                self._trim()
        except OSError as error:
            _logger.debug("%s cannot be written: %s", path, error)
        self._puts += 1

    def clear(self) -> int:
        """Remove all answers; returns how many there were."""
        num_removed = 0
        for path, _ in _files(self.folder):
            num_removed += _removed(path) and path.suffix == ".json"
        for pattern in (f"{_PAIR}/{_PAIR}", _PAIR):
            for folder in self.folder.glob(pattern):
                with suppress(OSError):  # not empty: another process has just written there, or it is no folder of ours
                    folder.rmdir()
        return num_removed

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r:.100} is not a key: take one from nbllm.session.cache.key")
        return self.folder / key[:2] / key[2:4] / f"{key}.json"

    def _trim(self) -> None:
        now = time.time()
        answers: list[tuple[float, int, Path]] = []
        for path, status in _files(self.folder):
            if path.suffix == ".json":
                answers.append((status.st_mtime, status.st_size, path))
            elif now - status.st_mtime > _ABANDONED_S:
                _removed(path)
        total = sum(size for _, size, _ in answers)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(answers):
            if total <= _TRIMMED * self._max_bytes:
                return
            if _removed(path):
                total -= size


def _prompt(request: GenerateRequest) -> dict[str, Any]:
    return {
        "messages": None if request.messages is None else [_turn(message) for message in request.messages],
        "text": request.text,
        "tokens": None if request.tokens is None else list(request.tokens),
        "parse_special": request.parse_special,
        "template_options": checked_options(request.template_options, ()),
        "continue_final": request.continue_final,
        **_extras(request),
    }


def _extras(request: GenerateRequest) -> dict[str, Any]:
    """What most requests lack, and whose lack changes no key."""
    extras: dict[str, Any] = {}
    if request.suffix is not None:
        extras["suffix"] = request.suffix
    if request.prompt_logprobs:
        extras["prompt_logprobs"] = True
    if request.tools:
        has_parameters = [tool.parameters is not None for tool in request.tools]
        extras["tools"] = [described(request.tools), has_parameters]
        extras["tool_choice"] = [request.tool_choice, request.forced_tool, request.parallel_tool_calls]
    return extras


def _shape(request: GenerateRequest) -> dict[str, Any]:
    constraint = request.constraint
    return {
        "sampling": _sampling(request.sampling),
        "constraint": None if constraint is None else [constraint.kind, constraint.source],
        "reproducible": request.reproducible,
    }


def _turn(message: Message) -> list[Any]:
    turn: list[Any] = [message.role, message.content, message.reasoning, message.name]
    if message.tool_calls or message.tool_call_id is not None:
        turn += [[call.id, call.name, call.arguments] for call in message.tool_calls], message.tool_call_id
    return turn


def _sampling(params: SamplingParams) -> dict[str, Any]:
    return {spec.name: _plain(getattr(params, spec.name)) for spec in fields(params)}


def _plain(value: Any) -> Any:
    """A parameter as JSON has it; zero has one sign, and a bias one order."""
    if isinstance(value, float):
        return value + 0.0
    if isinstance(value, dict):
        return sorted([token, _plain(bias)] for token, bias in value.items())
    return value


def _read(path: Path) -> bytes:
    """A whole file that is not too large. Opened so that a pipe in its place is not waited for."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise DamagedError("not a file of an answer's size")
        return file.read(MAX_FILE_BYTES)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The answers and the unfinished files; whatever else is in the folder is not ours."""
    for path in folder.glob(f"{_PAIR}/{_PAIR}/*"):
        if path.suffix == _UNFINISHED or (path.suffix == ".json" and _KEY.fullmatch(path.stem)):
            with suppress(OSError):
                yield path, path.stat(follow_symlinks=False)


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
