"""The chat templates that an engine renders with: the model's own, and those that requests bring."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property

from nbllm.chat.templates import ChatTemplate
from nbllm.engine.backend import Backend

MOST_KEPT = 8
"""Templates of requests that stay parsed."""


class Templates:
    """Safe on any thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._given: OrderedDict[str, ChatTemplate] = OrderedDict()

    def of(self, source: str | None) -> ChatTemplate:
        """A request's template, parsed once for all requests that bring the same; None is the model's own.

        Reading the vocabulary's control texts for the first of them takes a moment.
        """
        with self._lock:
            if source is None:
                return self._own
            if source not in self._given:
                self._given[source] = self._made(source, "the template of the request or its preset")
            self._given.move_to_end(source)
            while len(self._given) > MOST_KEPT:
                self._given.popitem(last=False)
            return self._given[source]

    @cached_property
    def _own(self) -> ChatTemplate:
        return self._made(self._backend.chat_template, "the model's chat template")

    @cached_property
    def _control_texts(self) -> tuple[str, ...]:
        return self._backend.control_texts()

    def _made(self, source: str | None, called: str) -> ChatTemplate:
        return ChatTemplate(
            source,
            bos=self._backend.special_text("bos"),
            eos=self._backend.special_text("eos"),
            control_texts=self._control_texts,
            called=called,
        )
