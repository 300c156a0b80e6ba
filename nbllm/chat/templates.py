"""Messages to the text that a model was trained on: the model's own chat template, and what is done when it refuses.

What holds for any template and any messages:
- rendering ends, in a second or three at the worst, and holds a bounded amount of memory (`program`, `rendering`);
- a control text in a message never becomes a control token (`marks`);
- nothing is dropped or changed in silence: `Rendered.notes` says what was done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from nbllm.chat import toolprompt
from nbllm.chat.budget import ProgramError, RefusalError, weight
from nbllm.chat.globals import GLOBALS
from nbllm.chat.marks import ControlTexts, Marks, Segment
from nbllm.chat.options import checked_options, map_texts, texts_of
from nbllm.chat.program import Program
from nbllm.chat.reasoning import THINK_TAGS, Tags
from nbllm.chat.rendered import AssistantSpan, Rendered
from nbllm.chat.rendering import Rendering
from nbllm.core import Message, Tool
from nbllm.errors import TemplateError

__all__ = ["AssistantSpan", "ChatTemplate", "Rendered", "Segment"]

_RESERVED = ("messages", "add_generation_prompt", "bos_token", "eos_token", *GLOBALS)


class ChatTemplate:
    """A model's chat template. It is parsed on first use, so that a broken one fails only chats.

    Args:
        source: the GGUF's `tokenizer.chat_template`; None or "" for a base model, which gets a stated plain form.
        bos: the text of the token that begins a prompt, "" if there is none.
        eos: the text of the token that ends a turn.
        control_texts: the texts of the vocabulary's control tokens.
        called: how its errors name it.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos: str,
        eos: str,
        control_texts: Sequence[str],
        called: str = "the model's chat template",
    ) -> None:
        self.source = source or ""
        self._called = called
        self._tokens = {"bos_token": bos, "eos_token": eos}
        self._control = ControlTexts(control_texts)

    @cached_property
    def reasoning_tags(self) -> Tags:
        """The tags that this model puts around its reasoning, as far as its template tells."""
        return next((tags for tags in THINK_TAGS if tags.close in self.source), THINK_TAGS[0])

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        options: Mapping[str, Any] | None = None,
        tools: Sequence[Tool] = (),
    ) -> Rendered:
        """Turn messages into a prompt.

        Args:
            add_generation_prompt: end with the beginning of an assistant's turn.
            continue_final: instead, end right after the content of the last message, an assistant's.
            options: further variables for the template (`enable_thinking`, ...).
            tools: that the model may call; a template that knows none gets them in a system text.

        Raises:
            TemplateError: the template is broken, refuses the messages in every form tried, runs too long or
                writes too much.
            ParameterError: an option is not plain data, or has a name that is taken; or a tool is not plain data.
        """
        if not messages:
            raise TemplateError("there are no messages: give at least one")
        if continue_final and messages[-1].role != "assistant":
            raise TemplateError(
                f"only an assistant's message can be continued, and the last one has the role {messages[-1].role}"
            )
        if continue_final and messages[-1].tool_calls:
            raise TemplateError("a message that ends in tool calls cannot be continued: answer the calls")
        given = checked_options(options or {}, (*_RESERVED, "tools") if tools else _RESERVED)
        described = toolprompt.described(tools)
        try:
            rendering = self._rendering(messages, add_generation_prompt and not continue_final, given, described)
            rendered = rendering.render(continue_final)
        except ProgramError as fault:
            raise TemplateError(_in_words(fault, self._called)) from fault
        continued = messages[-1].content if continue_final else None
        return replace(rendered, opens_reasoning=self._opens_reasoning(rendered.text, continued))

    @property
    def fault(self) -> ProgramError | None:
        """Why it cannot be parsed; None if it can, or if there is none."""
        return self._parsed if isinstance(self._parsed, ProgramError) else None

    @cached_property
    def _parsed(self) -> Program | ProgramError | None:
        try:
            return Program(self.source) if self.source else None
        except ProgramError as fault:
            return fault

    def _rendering(
        self, messages: Sequence[Message], generate: bool, options: dict[str, Any], tools: list[dict[str, Any]]
    ) -> Rendering:
        program = self._parsed
        if isinstance(program, ProgramError):
            raise ProgramError(program.problem, program.line)
        parts = [part for message in messages for part in (message.content, message.reasoning, message.name)]
        calls = [text for message in messages for text in toolprompt.call_texts(message.tool_calls)]
        ids = [message.tool_call_id for message in messages if message.tool_call_id]
        texts = [part for part in parts if part] + texts_of(options) + calls + ids + texts_of(tools)
        marks = Marks(self._control, [*texts, self.source])
        names = {
            **GLOBALS,
            "tools": None,
            "documents": None,
            **map_texts(options, marks.swapped),
            **self._tokens,
            "add_generation_prompt": generate,
        }
        return Rendering(program, self.source, messages, marks, names, sum(map(weight, texts)), tools)

    def _opens_reasoning(self, text: str, continued: str | None) -> bool:
        tags = self.reasoning_tags
        if continued and continued.strip():
            return continued.rfind(tags.open) > continued.rfind(tags.close)
        return text.rstrip().endswith(tags.open)


def _in_words(fault: ProgramError, called: str) -> str:
    if isinstance(fault, RefusalError):
        return f"{called} refuses these messages: {fault.in_a_line}"
    return f"{called} failed{fault.where}: {fault.in_a_line}"
