"""From a request to token ids: templates rendered, control texts kept apart, generated ids spliced back in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from nbllm.chat.callformats import CallFormat
from nbllm.chat.reasoning import THINK_TAGS, Tags
from nbllm.chat.templates import Rendered
from nbllm.core import GenerateRequest, Message, RenderedPrompt
from nbllm.engine.backend import Backend
from nbllm.engine.pieces import written_pieces
from nbllm.engine.templates import Templates
from nbllm.errors import InvalidRequestError, UnsupportedError


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the engine runs it: the ids, and what the rendering found out.

    Attributes:
        stop: texts that end the answer because the model has no token that would.
        calls: how the model was asked to write a call of a tool; None when it may call none.
        is_begun: the first token was put there to begin the prompt, and is no part of its text.
        reasoning_tags: what the template puts around reasoning.
    """

    rendered: RenderedPrompt
    stop: tuple[str, ...] = ()
    calls: CallFormat | None = None
    is_begun: bool = False
    reasoning_tags: Tags = THINK_TAGS[0]

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.rendered.tokens


class Prompts:
    """Renders and tokenizes for one model. Safe on any thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self.templates = Templates(backend)

    @cached_property
    def _pieces(self) -> Mapping[int, bytes]:
        return written_pieces(self._backend)

    @property
    def pieces(self) -> Mapping[int, bytes]:
        """The texts of tokens as a prompt has them, that of each control token included."""
        with self._lock:
            return self._pieces

    def warm_up(self) -> None:
        """Do what the first chat prompt would otherwise wait for: read the vocabulary, parse the template."""
        self.templates.of(None).render((Message("user", "."),))

    def prepare(self, request: GenerateRequest) -> Prompt:
        """Turn a request into ids.

        Raises:
            InvalidRequestError: it is empty, not encodable, refused by the template, or has unknown ids.
        """
        prompt = self._prepared(request)
        if not prompt.tokens:
            raise InvalidRequestError("the prompt is empty: give the model something to go on")
        return prompt

    def _prepared(self, request: GenerateRequest) -> Prompt:
        if request.tokens is not None:
            self._backend.check_ids(request.tokens, "tokens")
            text = b"".join(map(self.pieces.__getitem__, request.tokens)).decode("utf-8", errors="replace")
            return Prompt(RenderedPrompt(text, tuple(request.tokens)))
        if request.text is not None:
            if not request.text and not request.suffix:  # a token that begins every prompt is nothing to go on
                return Prompt(RenderedPrompt("", ()))
            if request.suffix is not None:
                return self._infill(request.text, request.suffix)
            ids = self._backend.tokenize(request.text, add_special=True, parse_special=request.parse_special)
            return Prompt(RenderedPrompt(request.text, tuple(ids)), is_begun=ids[:1] == [self._bos])
        return self._chat(request, request.messages or ())

    @property
    def _bos(self) -> int | None:
        """The token that begins every prompt, where there is one."""
        return self._backend.special("bos") if self._backend.adds_bos else None

    def _infill(self, before: str, after: str) -> Prompt:
        """The prompt for what stands between two texts, with the tokens that the model was trained to see there.

        Raises:
            UnsupportedError: it was not trained for that.
        """
        start, end, middle = (self._backend.special(f"fim_{part}") for part in ("pre", "suf", "mid"))
        if start is None or end is None or middle is None:
            raise UnsupportedError("this model has no fill-in-the-middle tokens: leave suffix out")
        texts = [self._backend.tokenize(text, add_special=False, parse_special=False) for text in (before, after)]
        bos = self._bos
        ids = [*([] if bos is None else [bos]), start, *texts[0], end, *texts[1], middle]
        return Prompt(RenderedPrompt(before + after, tuple(ids)))

    def _chat(self, request: GenerateRequest, messages: Sequence[Message]) -> Prompt:
        template = self.templates.of(request.template)
        rendered = template.render(
            messages,
            continue_final=request.continue_final,
            options=dict(request.template_options),
            tools=() if request.tool_choice == "none" else request.tools,
        )
        tokens = [token for part in self._parts(rendered, messages) for token in part]
        bos = self._bos
        is_begun = bos is not None and tokens[:1] != [bos]
        if bos is not None and is_begun:
            tokens.insert(0, bos)
        return Prompt(
            RenderedPrompt(rendered.text, tuple(tokens), rendered.notes, rendered.opens_reasoning),
            rendered.stop,
            rendered.calls,
            is_begun=is_begun,
            reasoning_tags=template.reasoning_tags,
        )

    def _parts(self, rendered: Rendered, messages: Sequence[Message]) -> Iterator[Sequence[int]]:
        """The ids of the text piece by piece; where an answer of this model stands unchanged, its own ids."""
        position = 0
        for span in rendered.assistant_spans:
            ids = self._own_ids(messages[span.message], rendered.text[span.start : span.end])
            if ids is None or span.start < position:
                continue
            yield from self._tokenized(rendered, position, span.start)
            yield ids
            position = span.end
        yield from self._tokenized(rendered, position, len(rendered.text))

    def _own_ids(self, message: Message, text: str) -> tuple[int, ...] | None:
        """The generated ids that make up exactly this text: all of them, or those after the reasoning."""
        ids, wanted = message.tokens or (), text.encode("utf-8", errors="replace")
        start = len(ids)
        rest = len(wanted)
        while rest > 0 and start > 0:
            start -= 1
            rest -= len(self._backend.pieces[ids[start]])
        if rest == 0 and start < len(ids) and self._backend.detokenize(ids[start:]) == wanted:
            return tuple(ids[start:])
        return None

    def _tokenized(self, rendered: Rendered, start: int, stop: int) -> Iterator[list[int]]:
        offset = 0
        for segment in rendered.segments:
            low, high = max(start, offset), min(stop, offset + len(segment.text))
            if low < high:
                piece = segment.text[low - offset : high - offset]
                yield self._backend.tokenize(piece, add_special=False, parse_special=segment.special)
            offset += len(segment.text)
