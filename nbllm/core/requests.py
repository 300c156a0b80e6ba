"""What an engine can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nbllm.core.adapters import Adapter
from nbllm.core.messages import Message
from nbllm.core.numbers import as_number
from nbllm.core.sampling import SamplingParams
from nbllm.errors import ParameterError

Priority = Literal["interactive", "batch"]

MAX_CHOICES = 1000
"""How many choices one request may hold: a class list is tens, and the books of one request stay small."""


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
class Tool:
    """A function that the model may ask to be called.

    Attributes:
        parameters: the JSON Schema of its arguments, an object; None is any object.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


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
        suffix: what comes after the answer to `text`, for models with fill-in-the-middle tokens.
        prompt_logprobs: report the likelihood of each prompt token too, as `sampling.logprobs` does of the answer's.
        tools: functions that the model may call, with messages only.
        tool_choice: "auto" leaves it to the model, "none" forbids calls, "required" guarantees one. With a
            `constraint` too, an answer that is no call has its shape; under "required" there is none such.
        forced_tool: with tool_choice "required", the name of the only tool that may be called.
        parallel_tool_calls: whether one answer may hold several calls.
        template: Jinja in place of the model's own chat template, with messages only.
        adapters: LoRA files to compute with; None is those of the model's preset, or none, and () is none at all.
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
    suffix: str | None = None
    prompt_logprobs: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    forced_tool: str | None = None
    parallel_tool_calls: bool = True
    template: str | None = None
    adapters: tuple[Adapter, ...] | None = None

    def __post_init__(self) -> None:
        given = [form for form in (self.messages, self.text, self.tokens) if form is not None]
        if len(given) != 1:
            raise ParameterError("prompt", "give exactly one of messages, text or tokens")
        if self.suffix is not None and self.text is None:
            raise ParameterError("suffix", "goes with a text prompt only")
        self._check_tools()
        _check_template(self.template, self.messages)
        _check_adapters(self.adapters)
        _check_timeout(self.timeout_s)

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools]
        if names and self.messages is None:
            raise ParameterError("tools", "go with messages only")
        if len(set(names)) < len(names):
            raise ParameterError("tools", "two of them have the same name")
        if self.tool_choice == "required" and not names:
            raise ParameterError("tool_choice", "asks for a call, and there are no tools")
        if self.forced_tool is not None and self.forced_tool not in names:
            raise ParameterError("tool_choice", f"there is no tool {self.forced_tool!r:.100} among the tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts to turn into vectors, answered by one chunk a text, in any order, with `index` set.

    Attributes:
        adapters: as a GenerateRequest's.
        unit: vectors of length 1; else of the length that the model gives them, where the engine can tell.
    """

    texts: tuple[str, ...]
    priority: Priority = "interactive"
    timeout_s: float | None = None
    unit: bool = True
    adapters: tuple[Adapter, ...] | None = None

    def __post_init__(self) -> None:
        _check_adapters(self.adapters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """A prompt and a continuation whose token log-likelihoods are wanted, answered by one chunk.

    `template` and `adapters` mean what a GenerateRequest's do.
    """

    prompt: str
    continuation: str
    messages: tuple[Message, ...] | None = None
    priority: Priority = "interactive"
    timeout_s: float | None = None
    template: str | None = None
    adapters: tuple[Adapter, ...] | None = None

    def __post_init__(self) -> None:
        _check_template(self.template, self.messages)
        _check_adapters(self.adapters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRequest:
    """A chat and the whole answers whose likelihoods are wanted, answered by one chunk a choice with `index` set.

    A chunk's `token_logprobs` are those of the choice's tokens and, last, of the token that ends the model's turn, so
    that "no" is not credited with the likelihood of "nothing". The other attributes mean what a GenerateRequest's do.

    Attributes:
        messages: a chat, rendered by the model's template inside the engine.
        choices: different texts, each a whole answer, as the model would write it.
    """

    messages: tuple[Message, ...]
    choices: tuple[str, ...]
    template_options: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "interactive"
    reproducible: bool = False
    cache_prompt: bool = True
    timeout_s: float | None = None
    template: str | None = None
    adapters: tuple[Adapter, ...] | None = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.choices) <= MAX_CHOICES:
            raise ParameterError("choices", f"must be 2 to {MAX_CHOICES} texts, not {len(self.choices)}")
        for choice in self.choices:
            if not isinstance(choice, str) or not choice:
                raise ParameterError("choices", f"must be texts that are not empty, not {choice!r:.100}")
        if len(set(self.choices)) < len(self.choices):
            twice = next(choice for choice in self.choices if self.choices.count(choice) > 1)
            raise ParameterError("choices", f"holds {twice!r:.100} twice")
        _check_template(self.template, self.messages)
        _check_adapters(self.adapters)
        _check_timeout(self.timeout_s)


Request = GenerateRequest | EmbedRequest | ScoreRequest | ChoiceRequest


def _check_timeout(seconds: float | None) -> None:
    number = None if seconds is None else as_number(float, seconds)
    if seconds is not None and (number is None or number <= 0):
        raise ParameterError("timeout", f"must be seconds above 0, not {seconds!r}")


def _check_template(template: object, messages: tuple[Message, ...] | None) -> None:
    if template is None:
        return
    if not isinstance(template, str):
        raise ParameterError("template", f"must be a text in Jinja, not {type(template).__name__}")
    if messages is None:
        raise ParameterError("template", "goes with messages only")


def _check_adapters(adapters: object) -> None:
    if adapters is None:
        return
    if not isinstance(adapters, tuple) or not all(isinstance(adapter, Adapter) for adapter in adapters):
        raise ParameterError("adapters", f"must be a tuple of Adapter, not {adapters!r:.100}")
