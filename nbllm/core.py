"""The values that pass between the rooms: pure, frozen, and free of any platform.

A surface makes a request, an engine answers it with chunks. Nothing here knows Jupyter, llama.cpp or a file format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Literal

from nbllm.errors import ParameterError

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "interrupted", "timeout", "error"]
Priority = Literal["interactive", "batch"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    `reasoning` is what an assistant thought before it answered. `tokens` are the ids that the engine generated for
    `content`; they are spliced into the rendered prompt where the text still matches, because generated text does
    not always tokenize back to the ids it came from, and a different id would end the reuse of the cached prefix.
    """

    role: Role
    content: str
    reasoning: str | None = None
    name: str | None = None
    tokens: tuple[int, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ParameterError("role", f"{self.role!r} is not one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ParameterError("content", f"must be a string, not {type(self.content).__name__}")


@dataclass(frozen=True, slots=True)
class _Range:
    """The numbers that a sampling parameter may take, both ends included."""

    kind: type
    low: float
    high: float
    doc: str

    def checked(self, name: str, value: object) -> float | int:
        number = _as_number(self.kind, value)
        if number is None:
            article = "a whole number" if self.kind is int else "a number"
            raise ParameterError(name, f"must be {article}, not {value!r}")
        if not self.low <= number <= self.high:
            raise ParameterError(name, f"{value!r} is out of range: {self.doc}")
        return number


def _as_number(kind: type, value: object) -> float | int | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # numpy's scalars convert, and what does not is an answer
    except (TypeError, ValueError, OverflowError):
        return None
    if isinstance(value, str | bytes) or not math.isfinite(number):
        return None
    if kind is float:
        return number
    return int(value) if number.is_integer() else None  # type: ignore[call-overload]


_SEED_MAX = 2**32 - 2  # llama.cpp reads 0xFFFFFFFF as "choose one"
RANGES: Mapping[str, _Range] = {
    "temperature": _Range(float, 0.0, 100.0, "0 is greedy, 1 the model's own distribution, at most 100"),
    "top_p": _Range(float, 0.0, 1.0, "from 0 to 1, 1 is off"),
    "top_k": _Range(int, 0, 2**31 - 1, "0 or more, 0 is off"),
    "min_p": _Range(float, 0.0, 1.0, "from 0 to 1, 0 is off"),
    "typical_p": _Range(float, 0.0, 1.0, "from 0 to 1, 1 is off"),
    "repeat_penalty": _Range(float, 0.01, 100.0, "more than 0, 1 is off"),
    "repeat_last_n": _Range(int, 0, 2**20, "0 or more tokens, 0 is off"),
    "presence_penalty": _Range(float, -2.0, 2.0, "from -2 to 2, 0 is off"),
    "frequency_penalty": _Range(float, -2.0, 2.0, "from -2 to 2, 0 is off"),
    "max_tokens": _Range(int, 0, 2**31 - 1, "0 or more"),
    "seed": _Range(int, 0, _SEED_MAX, f"from 0 to {_SEED_MAX}"),
    "n": _Range(int, 1, 128, "from 1 to 128"),
    "top_logprobs": _Range(int, 0, 20, "from 0 to 20"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. OpenAI's names where OpenAI has one, llama.cpp's where it has not.

    None means: the GGUF's own recommendation, else the engine's stated default (`engine.defaults`).

    Args:
        temperature: 0 is greedy.
        max_tokens: None runs a chat to the end of its turn within what is left of the context, and legacy
            completion for 16 tokens; 0 evaluates the prompt and generates nothing.
        repeat_penalty: llama.cpp's penalty over the last `repeat_last_n` tokens, prompt included.
        presence_penalty: OpenAI's: taken once from the logit of every token generated so far.
        frequency_penalty: OpenAI's: taken once for each time a token has been generated.
        logit_bias: token id to a number from -100 (never appears) to 100 (nothing else does).
        stop: texts that end the answer and are not part of it; a string or a sequence of strings, none of them empty.
        seed: None takes a random one, which the answer reports.
        logprobs: report the model's own log-probability of each token, before any bias or truncation.
        top_logprobs: how many alternatives to report with each, 0 to 20.
        n: how many answers to give to the one prompt.

    Raises:
        ParameterError: a value is of a wrong type or out of range; the message names the field and what is allowed.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0
    n: int = 1

    def __post_init__(self) -> None:
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, allowed.checked(name, value))
        if not isinstance(self.logprobs, bool):
            raise ParameterError("logprobs", f"must be True or False, not {self.logprobs!r}")
        if self.top_logprobs and not self.logprobs:
            raise ParameterError("top_logprobs", "needs logprobs=True")
        object.__setattr__(self, "stop", _checked_stop(self.stop))
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Build from keyword options; an unknown name raises ParameterError with the nearest known one."""
        known = [spec.name for spec in fields(cls)]
        for name in options:
            if name not in known:
                raise ParameterError(name, unknown_option(name, known))
        given = {name: value for name, value in options.items() if value is not None}
        return cls(**given)

    def or_else(self, defaults: SamplingParams) -> SamplingParams:
        """These parameters, with what is None here taken from `defaults`."""
        missing = {spec.name: getattr(defaults, spec.name) for spec in fields(self) if getattr(self, spec.name) is None}
        return replace(self, **missing)


def unknown_option(name: str, known: Sequence[str]) -> str:
    """Say that `name` is not an option, and which of the `known` ones may have been meant."""
    import difflib

    close = difflib.get_close_matches(str(name), known, n=1)
    if close:
        return f"is not an option; did you mean {close[0]}?"
    return f"is not an option; the options are {', '.join(sorted(known))}"


def _checked_stop(stop: object) -> tuple[str, ...]:
    texts = (stop,) if isinstance(stop, str) else stop
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise ParameterError("stop", f"must be a string or a list of strings, not {stop!r}")
    if "" in texts:
        raise ParameterError("stop", "an empty string would stop every answer at once; leave it out")
    return tuple(dict.fromkeys(texts))


def _checked_bias(bias: object) -> dict[int, float]:
    if not isinstance(bias, Mapping):
        raise ParameterError("logit_bias", f"must map token ids to numbers, not {bias!r}")
    checked: dict[int, float] = {}
    allowed = _Range(float, -100.0, 100.0, "from -100 (never) to 100 (only this)")
    for key, value in bias.items():
        token = _token_id(key)
        checked[token] = allowed.checked(f"logit_bias[{key!r}]", value)
    return checked


def _token_id(key: object) -> int:
    """OpenAI's JSON has token ids as strings."""
    try:
        token = int(key) if not isinstance(key, bool) else -1  # type: ignore[call-overload]
    except (TypeError, ValueError):
        token = -1
    if token < 0:
        raise ParameterError("logit_bias", f"{key!r} is not a token id")
    return int(token)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A shape that the answer is guaranteed to have.

    Attributes:
        kind: which language `source` is in.
        source: a JSON Schema as JSON text, a regular expression, the choices as a JSON list, or a grammar.
    """

    kind: Literal["json_schema", "regex", "choice", "lark", "gbnf"]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One prompt to answer, in exactly one of three forms.

    Attributes:
        messages: a chat, rendered by the model's template inside the engine.
        text: raw text; control-token texts in it are taken as control tokens only if `parse_special`.
        tokens: token ids, taken as they are.
        priority: "interactive" goes before "batch".
        reproducible: evaluate in fixed shapes, so that neighbours and caches cannot change the text.
        cache_prompt: reuse and keep the evaluated prefix.
        timeout_s: seconds from submission to the end, whatever the request is waiting for; the text so far is kept.
        template_options: extra variables for the chat template (`enable_thinking`, ...).
        continue_final: go on with the last message, an assistant's, instead of answering it.
    """

    messages: tuple[Message, ...] | None = None
    text: str | None = None
    tokens: tuple[int, ...] | None = None
    sampling: SamplingParams = field(default_factory=SamplingParams)
    constraint: Constraint | None = None
    priority: Priority = "interactive"
    reproducible: bool = False
    cache_prompt: bool = True
    parse_special: bool = False
    timeout_s: float | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)
    continue_final: bool = False

    def __post_init__(self) -> None:
        given = [form for form in (self.messages, self.text, self.tokens) if form is not None]
        if len(given) != 1:
            raise ParameterError("prompt", "give exactly one of messages, text or tokens")
        if self.timeout_s is not None:
            number = _as_number(float, self.timeout_s)
            if number is None or number <= 0:
                raise ParameterError("timeout", f"must be seconds above 0, not {self.timeout_s!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to turn into unit vectors, answered by one chunk a text, in any order, with `index` set."""

    texts: tuple[str, ...]
    priority: Priority = "interactive"
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """A prompt and a continuation whose token log-likelihoods are wanted, answered by one chunk."""

    prompt: str
    continuation: str
    messages: tuple[Message, ...] | None = None
    priority: Priority = "interactive"
    timeout_s: float | None = None


Request = GenerateRequest | EmbedRequest | ScoreRequest


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability under the model's own distribution, and its likeliest rivals.

    `data` holds the token's bytes: a token may be a part of a character.
    """

    token: int
    data: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `cached_tokens` of the prompt were not evaluated again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that one request took, as the engine measured them."""

    queue_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0

    def tokens_per_s(self, completion_tokens: int) -> float:
        """The decoding speed; the first token belongs to the prefill."""
        return (completion_tokens - 1) / self.decode_s if completion_tokens > 1 and self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of one answer. The last piece of an answer has a `finish_reason`, `usage` and `timings`.

    Attributes:
        index: which of the `n` answers, or which text of an embedding request.
        text: new text of the answer.
        reasoning: new text of the thinking before the answer.
        tokens: the ids generated since the last chunk, the end-of-turn token left out.
        logprobs: one entry for each of `tokens` when asked for.
        error: what ended the answer, with finish_reason "error".
        seed: the seed that was used, in the last chunk.
        embedding: a unit vector, float32.
        token_logprobs: for a ScoreRequest, the log-likelihood of each token of the continuation.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    error: BaseException | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None
    embedding: Any = None
    token_logprobs: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What a GGUF file says of itself, as its metadata tells without loading it.

    Attributes:
        name: what `nbllm.load` takes.
        path: the file; the first one of a split model.
        size_bytes: of all its files.
        architecture: llama.cpp's name for the family ("llama", "gemma3", ...).
        quantization: of most weights ("Q4_1", "Q8_0", "F16", ...), "" when the file does not say.
        parameters: number of weights, 0 when the file does not say.
        context_length: what the model was trained for, in tokens.
        kv_bytes_per_token: of an f16 cache over all layers, both K and V.
        loaded: whether this process holds it.
        problem: why it cannot be loaded, "" when it looks well.
    """

    name: str
    path: str
    size_bytes: int
    architecture: str = ""
    quantization: str = ""
    parameters: int = 0
    context_length: int = 0
    vocabulary_size: int = 0
    embedding_length: int = 0
    kv_bytes_per_token: int = 0
    sliding_window: int = 0
    has_chat_template: bool = False
    loaded: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine holds and what it chose.

    Attributes:
        context_length: tokens that one sequence may have.
        max_sequences: sequences that run side by side.
        kv_tokens: size of the pool that they share, in tokens.
        kv_type: of the cached keys and values ("f16", "q8_0").
        gpu_layers: layers on a GPU, 0 without one.
        defaults: what a request gets where it says nothing.
        template_note: how messages become text where the model's own template does not suffice, "" otherwise.
        summary: one line for a person.
    """

    model: ModelInfo
    context_length: int
    max_sequences: int
    kv_tokens: int
    kv_type: str
    gpu_layers: int
    defaults: SamplingParams
    template_note: str = ""
    summary: str = ""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """Exactly what a request becomes: the text, its token ids, and what was done to the messages on the way."""

    text: str
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()
    opens_reasoning: bool = False


class StepStatus(Enum):
    """How evaluating a batch ended: done, no room in the KV memory, or aborted."""

    OK = 0
    FULL = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One token to evaluate: where it stands in which slot's sequence, and whether its output is wanted."""

    token: int
    position: int
    slot: int
    output: bool
