"""The fields of OpenAI's requests that are understood here, and the extensions, as types.

Every optional field may be null, which means absent. Whole numbers are typed as any number: 1688.0 is one too, and
`core` checks it together with the range.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from nbllm.core import RANGES, ROLES
from nbllm.core.numbers import Range

Number = int | float
Kind = Literal["chat", "completion", "embeddings", "tokenize", "detokenize"]
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SEED = Range(int, -(2**63), 2**63 - 1, f"from {-(2**63)} to {2**63 - 1}")
"""OpenAI's; the engine's seeds are fewer."""
MAX_LOGPROBS = 5
"""Of the old completions; chats have `top_logprobs`."""


def _one_of(*values: str) -> msgspec.Meta:
    """A hint in the schema only: what is wrong is said by whoever reads the field, who knows what to use instead."""
    return msgspec.Meta(extra_json_schema={"enum": list(values)})


_Function = Annotated[str, _one_of("function")]


class Part(msgspec.Struct):
    type: Annotated[str, _one_of("text", "refusal")]
    text: str | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class CalledTool(msgspec.Struct):
    id: str
    function: CalledFunction | None = None
    type: _Function = "function"


class ChatMessage(msgspec.Struct):
    role: Annotated[str, _one_of(*ROLES)]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    function_call: Any = None


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolSpec(msgspec.Struct):
    type: _Function
    function: ToolFunction | None = None


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    type: _Function
    function: NamedFunction | None = None


class AllowedTools(msgspec.Struct):
    mode: Annotated[str, _one_of("auto", "required")]
    tools: list[NamedTool]


class ToolChoice(msgspec.Struct):
    type: Annotated[str, _one_of("function", "allowed_tools")]
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


class NamedSchema(msgspec.Struct):
    schema: bool | dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    type: Annotated[str, _one_of("text", "json_object", "json_schema")]
    json_schema: NamedSchema | None = None
    schema: bool | dict[str, Any] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class LoraEntry(msgspec.Struct):
    """`path` is only there to be refused."""

    id: Number | None = None
    scale: Number | None = None
    path: Any = None


class GenerationBody(msgspec.Struct, kw_only=True):
    """What chats and old completions have in common."""

    model: str
    temperature: Number | None = None
    top_p: Number | None = None
    n: Number | None = None
    stop: str | list[str] | None = None
    seed: Number | None = None
    presence_penalty: Number | None = None
    frequency_penalty: Number | None = None
    logit_bias: dict[str, Number] | None = None
    max_tokens: Number | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None
    # extensions from here on
    top_k: Number | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    repeat_penalty: Number | None = None
    repeat_last_n: Number | None = None
    grammar: str | None = None
    regex: str | None = None
    choice: list[str] | None = None
    keep_alive: str | Number | None = None
    cache_prompt: bool | None = None
    reproducible: bool | None = None
    timeout: Number | None = None
    lora: list[LoraEntry] | None = None


class ChatBody(GenerationBody, kw_only=True):
    messages: list[ChatMessage]
    max_completion_tokens: Number | None = None
    logprobs: bool | None = None
    top_logprobs: Number | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Annotated[str | None, _one_of(*EFFORTS)] = None
    modalities: list[str] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionBody(GenerationBody, kw_only=True):
    prompt: str | list[str | Number | list[Number]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Number | None = None
    logprobs: Number | None = None


class EmbeddingsBody(msgspec.Struct, kw_only=True):
    model: str
    input: str | list[str | Number | list[Number]]
    encoding_format: Annotated[str | None, _one_of("float", "base64")] = None
    dimensions: Number | None = None
    user: str | None = None
    keep_alive: str | Number | None = None
    timeout: Number | None = None
    lora: list[LoraEntry] | None = None


class TokenizeBody(msgspec.Struct, kw_only=True):
    model: str
    content: str
    parse_special: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    model: str
    tokens: list[Number]


_BODIES: dict[Kind, type[msgspec.Struct]] = {
    "chat": ChatBody,
    "completion": CompletionBody,
    "embeddings": EmbeddingsBody,
    "tokenize": TokenizeBody,
    "detokenize": DetokenizeBody,
}

# OpenAI's own fields without a meaning on one's own machine: accounts, storage, billing, hints for speed.
IGNORED = (
    "metadata",
    "moderation",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "verbosity",
)
REFUSED = {
    "functions": "is deprecated: use tools",
    "function_call": "is deprecated: use tool_choice, with tools",
    "audio": "sound is not supported; leave it out",
    "web_search_options": "searching the web is not supported; leave it out",
}


def json_schema(kind: Kind) -> dict[str, Any]:
    """The JSON Schema of a request's body, with the ranges of its numbers: for documentation and for fuzzing."""
    body = _BODIES[kind]
    (schema,), parts = msgspec.json.schema_components([body], ref_template="#/$defs/{name}")
    ranges = {**RANGES, "seed": SEED}
    for name, field in parts[body.__name__]["properties"].items():
        if name in ranges:
            field |= {"minimum": ranges[name].low, "maximum": ranges[name].high}
    return {**schema, "$defs": parts}
