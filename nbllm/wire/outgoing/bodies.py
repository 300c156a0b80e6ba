"""A request as the JSON that another server reads.

What is None in a request is left out: it is the server's to choose. OpenAI's own parameters are sent to every server.
What goes beyond them is sent only to a server that is known to obey it, and is an error for any other: most servers
ignore keys that they do not know, and the answer would silently be another one than was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nbllm.core import Constraint, GenerateRequest, Message, Tool
from nbllm.errors import UnsupportedError
from nbllm.wire.outgoing.listing import Kind, Server

_STANDARD = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_EXTENSIONS = ("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n")
_EXTENSIONS_OF: Mapping[Kind, tuple[str, ...]] = {
    "nbllm": _EXTENSIONS,
    "llamacpp": _EXTENSIONS,
    "vllm": ("top_k", "min_p"),  # its repetition penalty looks at the whole prompt, llama.cpp's at the last tokens
}
_READS_REASONING: tuple[Kind, ...] = ("nbllm", "llamacpp", "vllm")
_TAKES_TEMPLATE_OPTIONS: tuple[Kind, ...] = ("nbllm", "llamacpp", "vllm")
_COMPLETION_TOKENS = 16  # OpenAI's default, which llama-server does not keep
_PROGRAMS: Mapping[Kind, str] = {"llamacpp": "llama-server", "vllm": "this version of vLLM", "nbllm": "nbllm"}
_VLLM_RENAMED = (0, 12)


@dataclass(frozen=True, slots=True)
class Call:
    """A POST: where to, below the base URL, and what."""

    path: str
    body: dict[str, Any]


def depends_on_server(request: GenerateRequest) -> bool:
    """Whether the body holds, or refuses, something that only some servers know."""
    constraint = request.constraint
    return (
        any(getattr(request.sampling, name) is not None for name in _EXTENSIONS)
        or (constraint is not None and (constraint.kind != "json_schema" or request.messages is None))
        or bool(request.template_options)
        or bool(request.adapters)
        or request.template is not None
        or request.reproducible
        or request.continue_final
        or not request.cache_prompt
        or any(turn.reasoning for turn in request.messages or ())
    )


def generate_call(request: GenerateRequest, model: str, server: Server) -> Call:
    """The call that answers `request` with a stream.

    Raises:
        UnsupportedError: the request has what this server is not known to do.
    """
    if request.prompt_logprobs:
        raise UnsupportedError("prompt_logprobs: another server does not report them; load the model here")
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    body |= _sampling(request, server) | _switches(request, server)
    if request.messages is None:
        return Call("/completions", body | _completion(request, server))
    return Call("/chat/completions", body | _chat(request, request.messages, server))


def embeddings_call(texts: Sequence[str], model: str) -> Call:
    return Call("/embeddings", {"model": model, "input": list(texts), "encoding_format": "float"})


def _sampling(request: GenerateRequest, server: Server) -> dict[str, Any]:
    params = request.sampling
    body = {name: getattr(params, name) for name in _STANDARD if getattr(params, name) is not None}
    for name in _EXTENSIONS:
        value = getattr(params, name)
        if value is None:
            continue
        if name not in _EXTENSIONS_OF.get(server.kind, ()):
            _refuse(name, server, "leave it out")
        body[name] = value
    if params.n != 1:
        body["n"] = params.n
    if params.stop:
        body["stop"] = list(params.stop)
    if params.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    return body


def _switches(request: GenerateRequest, server: Server) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if request.reproducible:
        if server.kind != "nbllm":
            _refuse("reproducible", server, "leave it out, or load the model here")
        body["reproducible"] = True
    if not request.cache_prompt:
        if server.kind not in ("nbllm", "llamacpp"):
            _refuse("cache_prompt", server, "leave it out")
        body["cache_prompt"] = False
    if request.adapters:
        _refuse("lora", server, "load the model here")
    if request.template is not None:
        _refuse("template", server, "load the model here")
    if request.template_options:
        if server.kind not in _TAKES_TEMPLATE_OPTIONS:
            _refuse("template_options", server, "leave it out")
        body["chat_template_kwargs"] = dict(request.template_options)
    return body


def _chat(request: GenerateRequest, turns: Sequence[Message], server: Server) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [_message(turn, server) for turn in turns]}
    params = request.sampling
    if params.max_tokens is not None:
        body["max_completion_tokens" if server.kind == "openai" else "max_tokens"] = params.max_tokens
    if params.logprobs:
        body |= {"logprobs": True, "top_logprobs": params.top_logprobs}
    if request.continue_final:
        if server.kind != "vllm":
            _refuse("continue_final", server, "leave it out")
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.constraint is not None:
        body |= _chat_constraint(request.constraint, server)
    return body | _tools(request)


def _message(turn: Message, server: Server) -> dict[str, Any]:
    body: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name is not None:
        body["name"] = turn.name
    if turn.reasoning and server.kind in _READS_REASONING:  # elsewhere it is no key, and OpenAI refuses those
        body["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        body["content"] = turn.content or None
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        body["tool_call_id"] = turn.tool_call_id
    return body


def _tools(request: GenerateRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    body: dict[str, Any] = {"tools": [_tool(tool) for tool in request.tools]}
    if request.tool_choice == "required" and request.forced_tool is not None:
        body["tool_choice"] = {"type": "function", "function": {"name": request.forced_tool}}
    elif request.tool_choice != "auto":
        body["tool_choice"] = request.tool_choice
    if not request.parallel_tool_calls:
        body["parallel_tool_calls"] = False
    return body


def _tool(tool: Tool) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}} if tool.parameters is None else dict(tool.parameters)
    function: dict[str, Any] = {"name": tool.name, "parameters": parameters}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _completion(request: GenerateRequest, server: Server) -> dict[str, Any]:
    params = request.sampling
    body: dict[str, Any] = {"prompt": request.text if request.tokens is None else list(request.tokens)}
    body["max_tokens"] = _COMPLETION_TOKENS if params.max_tokens is None else params.max_tokens
    if request.suffix is not None:
        body["suffix"] = request.suffix
    if params.logprobs:
        body["logprobs"] = params.top_logprobs
    if request.constraint is not None:
        body |= _completion_constraint(request.constraint, server)
    return body


def _chat_constraint(constraint: Constraint, server: Server) -> dict[str, Any]:
    if constraint.kind == "json_schema":
        return {"response_format": _response_format(constraint)}
    return _extension_constraint(constraint, server)


def _completion_constraint(constraint: Constraint, server: Server) -> dict[str, Any]:
    """OpenAI's legacy completion has no constraints at all."""
    if constraint.kind != "json_schema":
        return _extension_constraint(constraint, server)
    if server.kind == "llamacpp":
        return {"json_schema": json.loads(constraint.source)}
    if server.kind in ("nbllm", "vllm"):
        return {"response_format": _response_format(constraint)}
    _refuse("response_format", server, "ask for it with chat, which every server knows")


def _response_format(constraint: Constraint) -> dict[str, Any]:
    schema = json.loads(constraint.source)
    if schema == {"type": "object"}:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _extension_constraint(constraint: Constraint, server: Server) -> dict[str, Any]:
    kind, source = constraint.kind, constraint.source
    value = json.loads(source) if kind == "choice" else source
    if server.kind == "nbllm":
        return {"grammar" if kind in ("gbnf", "lark") else kind: value}
    if server.kind == "llamacpp" and kind in ("gbnf", "choice"):
        return {"grammar": _choice_grammar(value) if kind == "choice" else source}
    if server.kind == "vllm" and server.version and kind in ("regex", "choice"):
        if server.version >= _VLLM_RENAMED:
            return {"structured_outputs": {kind: value}}
        return {f"guided_{kind}": value}
    name = "grammar" if kind in ("gbnf", "lark") else kind
    _refuse(name, server, "give a JSON Schema as response_format, which every server knows, or load the model here")


def _choice_grammar(choices: Sequence[str]) -> str:
    return "root ::= " + " | ".join(f'"{_escaped(choice)}"' for choice in choices)


def _escaped(text: str) -> str:
    """As a literal of GBNF."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(character if character >= " " else f"\\x{ord(character):02X}" for character in plain)


def _refuse(option: str, server: Server, advice: str) -> NoReturn:
    program = _PROGRAMS.get(server.kind, "the server")
    raise UnsupportedError(f"{option}: {program} is not known to obey it, and would answer without it: {advice}")
