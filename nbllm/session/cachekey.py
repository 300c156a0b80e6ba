"""What tells two requests' answers apart."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nbllm.chat.options import checked_options
from nbllm.chat.toolprompt import described
from nbllm.core import ChoiceRequest, EmbedRequest, EngineInfo, GenerateRequest, Message, SamplingParams
from nbllm.core.adapters import Adapter
from nbllm.core.presets import Preset, applied
from nbllm.store.hashes import file_hash as hash_of_file

_USUAL_KV = "f16"
_Request = GenerateRequest | EmbedRequest | ChoiceRequest


def key(*, file_hash: str, request: _Request, version: str, engine: Mapping[str, Any] | None = None) -> str:
    """What says that two requests have the same answer: the model, the prompt, and all that shapes the text.

    How long to wait and what to reuse do not; nor do the ids that earlier answers were generated as, which a reopened
    notebook no longer has.

    Args:
        request: as the engine is asked it, with what a preset adds.
        version: of what computes the answer, as `versions` says.
        engine: what else of it shapes the text, as `engine_options` says; nothing is an engine with the usual ones.

    Raises:
        ParameterError: the template's options are not plain data.
        ModelLoadError: an adapter's file cannot be read.
    """
    whole: dict[str, Any] = {"file": file_hash, "version": version}
    if engine:
        whole["engine"] = dict(engine)
    whole |= _asked(request) | _tailored(request)
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode("ascii")).hexdigest()


def preset_key(preset: Preset | None) -> str:
    """What says that two presets do the same to requests, whatever they are called; "" for one that does nothing.

    Raises:
        ModelLoadError: the file of one of its adapters cannot be read.
    """
    plain = GenerateRequest(messages=(Message("user", "?"),))
    asked = plain if preset is None else applied(preset, plain)
    return "" if asked == plain else key(file_hash="", request=asked, version="")


def engine_options(info: EngineInfo) -> dict[str, Any]:
    """What is unusual in how an engine was loaded, and changes its answers.

    Keys and values of less precision; layers on a GPU and flash attention, which round otherwise.
    """
    options: dict[str, Any] = {}
    if info.kv_type not in ("", _USUAL_KV):
        options["kv_type"] = info.kv_type
    if info.gpu_layers:
        options["gpu_layers"] = info.gpu_layers
    if info.flash_attention is not None:
        options["flash_attention"] = info.flash_attention
    return options


def versions() -> str:
    """Of nbllm and of llama.cpp's binding, which is not loaded for it."""
    import importlib.metadata

    from nbllm._version import __version__

    try:
        binding = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        binding = "none"
    return f"nbllm {__version__}, llama-cpp-python {binding}"


def _asked(request: _Request) -> dict[str, Any]:
    if isinstance(request, EmbedRequest):
        return {"embed": list(request.texts), **({} if request.unit else {"unit": False})}
    if isinstance(request, ChoiceRequest):
        return {
            "choices": list(request.choices),
            "messages": [_turn(message) for message in request.messages],
            "template_options": checked_options(request.template_options, ()),
            "reproducible": request.reproducible,
        }
    return {**_prompt(request), **_extras(request), **_shape(request)}


def _tailored(request: _Request) -> dict[str, Any]:
    """What few requests have, and whose lack changes no key."""
    own: dict[str, Any] = {}
    if request.adapters:
        own["adapters"] = [[_content(adapter), _plain(adapter.scale)] for adapter in request.adapters]
    if not isinstance(request, EmbedRequest) and request.template is not None:
        own["template"] = request.template
    return own


def _content(adapter: Adapter) -> str:
    """The hash of its file, which a table's million rows do not look up a million times."""
    try:
        status = os.stat(adapter.path)
    except OSError:
        return hash_of_file(adapter.path)  # says what is wrong
    return _hash_of(adapter.path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=64)
def _hash_of(path: str, *_stamp: int) -> str:
    return hash_of_file(path)


def _prompt(request: GenerateRequest) -> dict[str, Any]:
    return {
        "messages": None if request.messages is None else [_turn(message) for message in request.messages],
        "text": request.text,
        "tokens": None if request.tokens is None else list(request.tokens),
        "parse_special": request.parse_special,
        "template_options": checked_options(request.template_options, ()),
        "continue_final": request.continue_final,
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
