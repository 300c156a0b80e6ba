"""One run of a `%%chat` cell: find the model, ask, show the answer as it comes, keep what came."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from nbllm.errors import NbllmError
from nbllm.notebook.footer import parameters, record

if TYPE_CHECKING:
    from nbllm.core import Chunk, FinishReason, SamplingParams
    from nbllm.notebook.arguments import ChatArguments
    from nbllm.notebook.conversations import Conversations
    from nbllm.notebook.display import AnswerView
    from nbllm.notebook.models import Models
    from nbllm.session.model import Model
    from nbllm.session.response import Collector, Response


class Cell:
    """A question on its way to its answer.

    Args:
        keep: called with the Response, also with one that was interrupted or failed on the way.
    """

    def __init__(
        self,
        asked: ChatArguments,
        models: Models,
        conversations: Conversations,
        view: AnswerView,
        keep: Callable[[Response], None],
    ) -> None:
        self._asked, self._models, self._conversations = asked, models, conversations
        self._view, self._keep = view, keep

    def run(self) -> Response | None:
        """Answer the question. None without one, which only `--new` allows.

        Raises:
            InvalidRequestError: an option is wrong; checked before any model is loaded.
            KeyboardInterrupt: it was interrupted; what came is shown, kept and part of the conversation.
        """
        asked = self._asked
        if asked.new and not asked.prompt:
            self._forget()
            return None
        sampling = self._checked()
        model = self._model()
        stream = self._stream(model)
        return self._follow(stream, model, sampling)

    def _forget(self) -> None:
        model = self._models.loaded(self._asked.model)
        if model is not None:
            self._conversations.forget(model, self._asked.system)

    def _checked(self) -> SamplingParams:
        from nbllm.session.requests import Options

        options = Options.of(self._asked.options)
        options.chat(self._asked.prompt)
        return options.sampling

    def _model(self) -> Model:
        name = self._asked.model
        loaded = self._models.loaded(name)
        if loaded is not None:
            return loaded
        shown = name or self._models.default()
        self._view.status(f"loading {shown} …")
        try:
            model = self._models.load(name)
        except BaseException:
            self._view.status(f"{shown} was not loaded")
            raise
        self._view.note(model.info.summary)
        return model

    def _stream(self, model: Model) -> Generator[Chunk, None, None]:
        asked = self._asked
        if asked.no_history:
            chunks = model.stream(asked.prompt, system=asked.system, **asked.options)
        else:
            if asked.new:
                self._conversations.forget(model, asked.system)
            chunks = self._conversations.current(model, asked.system).stream(asked.prompt, **asked.options)
        return cast("Generator[Chunk, None, None]", chunks)  # closing one cancels the request

    def _follow(self, stream: Generator[Chunk, None, None], model: Model, sampling: SamplingParams) -> Response:
        from nbllm.session.response import Collector

        collector = Collector(model.name)
        in_force = parameters(
            sampling, model.info.defaults, self._asked.system, bool(self._asked.options.get("reproducible"))
        )
        try:
            with closing(stream):
                for chunk in stream:
                    collector.add(chunk)
                    self._view.add(chunk)
        except KeyboardInterrupt as interrupt:
            self._end(_cut(collector, "interrupted"), in_force)
            # IPython asks for this instead of a traceback, which would show only where we waited.
            interrupt._render_traceback_ = _one_line  # type: ignore[attr-defined]
            raise
        except NbllmError:
            partial = _cut(collector, "error")
            if partial.text or partial.reasoning:
                self._end(partial, in_force)
            raise
        return self._end(collector.response(), in_force)

    def _end(self, response: Response, in_force: dict[str, Any]) -> Response:
        self._view.finish(response, record(response, in_force))
        self._keep(response)
        return response


def _cut(collector: Collector, reason: FinishReason) -> Response:
    """The answer so far. Without a last chunk nobody counted, except for the tokens that came."""
    response = collector.response()
    if collector.is_finished:
        return response
    usage = replace(response.usage, completion_tokens=len(response.tokens))
    return replace(response, finish_reason=reason, usage=usage)


def _one_line() -> list[str]:
    return ["KeyboardInterrupt: the answer was stopped; what came of it is kept"]
