"""One run of a `%%chat` cell: find the model, ask, show the answer as it comes, keep what came."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbllm.core import Chunk
from nbllm.engine.interface import iter_chunks
from nbllm.errors import ContextOverflowError, InvalidRequestError, NbllmError
from nbllm.notebook.ask import Ask, ask, place, trimmed
from nbllm.notebook.desk import Desk, Sent
from nbllm.notebook.footer import details, parameters, record, usage_line

if TYPE_CHECKING:
    from nbllm.core import FinishReason
    from nbllm.notebook.arguments import ChatArguments
    from nbllm.notebook.display import AnswerView
    from nbllm.notebook.stored import Stored
    from nbllm.notebook.tree import Turn
    from nbllm.session.model import Model
    from nbllm.session.response import Collector, Response


class Cell:
    """A question on its way to its answer.

    Args:
        asked: with everything filled in, as the composer leaves it.
        keep: called with the Response, also with one that was interrupted or failed on the way.
    """

    def __init__(self, asked: ChatArguments, desk: Desk, view: AnswerView, keep: Callable[[Response], None]) -> None:
        self._asked, self._desk, self._view, self._keep = asked, desk, view, keep
        self._notes: list[str] = []
        self._stored: Stored | None = None

    def run(self) -> Response | None:
        """Answer the question. None without one, which `--new` allows, and `--continue` after a complete answer.

        Raises:
            InvalidRequestError: an option is wrong; checked before any model is loaded.
            KeyboardInterrupt: it was interrupted; what came is shown, kept and part of the conversation.
        """
        asked, desk = self._asked, self._desk
        if asked.new and not asked.prompt and not asked.goes_on:
            self._begin_anew()
            return None
        question = ask(asked, desk)
        if question.is_complete:
            self._view.status("the last answer is complete: there is nothing to go on with")
            return None
        return self._from_disk(question) or self._from_model(question)

    def _begin_anew(self) -> None:
        """`--new` without a question: the next cell's will be the first of a conversation."""
        tree, _ = place(self._asked, self._desk)
        self._desk.conversations.commit(tree)

    # ---- from disk

    def _from_disk(self, question: Ask) -> Response | None:
        if not self._asked.cache:
            return None
        from nbllm.notebook.stored import Stored

        models, name = self._desk.models, self._asked.model
        self._stored = Stored.at(models.path(name), question.request, models.preset(name))
        found = self._stored.find()
        if found is None:
            return None
        response, noted = found
        self._desk.last_sent = Sent(question.request, self._asked.model)
        self._view.add(Chunk(text=response.text, reasoning=response.reasoning))
        self._notes = list(noted.get("notes", ()))
        return self._end(question, response, noted)

    # ---- from the model

    def _from_model(self, question: Ask) -> Response:
        model = self._model()
        if self._asked.trim:
            question, dropped = trimmed(question, model)
            if dropped:
                turns = "oldest turn" if dropped == 1 else f"{dropped} oldest turns"
                self._notes.append(f"left out the {turns}, to fit into the context")
        self._check_thinking(question, model)
        self._desk.last_sent = Sent(question.request, self._asked.model)
        return self._follow(question, model)

    def _model(self) -> Model:
        name, models = self._asked.model, self._desk.models
        loaded = models.loaded(name)
        if loaded is not None:
            return loaded
        shown = name or models.default()
        try:
            self._view.status(f"loading {shown} …")
            model = models.load(name)
        except BaseException as error:
            self._view.status(f"{shown} was not loaded")
            if isinstance(error, KeyboardInterrupt):
                error._render_traceback_ = _not_loaded  # type: ignore[attr-defined]
            raise
        self._view.status(model.info.summary)
        if not self._asked.cache:  # a run that finds the answer on disk loads nothing and has to look the same
            self._notes.append(model.info.summary)
        return model

    def _check_thinking(self, question: Ask, model: Model) -> None:
        """Say so when the template does the same whether it is asked to think or not."""
        if self._asked.think is None:
            return
        other = question.with_template_option("enable_thinking", not self._asked.think)
        if model.engine.render(other.request).text == model.engine.render(question.request).text:
            self._notes.append("this model's template has no switch for thinking")

    def _follow(self, question: Ask, model: Model) -> Response:
        from nbllm.session.response import Collector

        collector = Collector(model.name, question.request.constraint, question.begun)
        if question.begun is not None:
            self._view.add(Chunk(text=question.begun.content, reasoning=question.begun.reasoning or ""))
        noted = self._noted(question, model)
        if threading.current_thread() is not threading.main_thread():
            # An output belongs to the cell that runs when it is first shown, and the answer may come cells later.
            self._view.claim()
        try:
            for chunk in iter_chunks(model.engine, question.request):
                collector.add(chunk)
                if chunk.error is not None:
                    raise chunk.error
                self._view.add(chunk)
        except KeyboardInterrupt as interrupt:
            self._end(question, _cut(collector, "interrupted"), noted)
            # IPython asks for this instead of a traceback, which would show only where we waited.
            interrupt._render_traceback_ = _one_line  # type: ignore[attr-defined]
            raise
        except NbllmError as error:
            partial = _cut(collector, "error")
            if partial.text or partial.reasoning:
                self._end(question, partial, noted)
            advised = self._advised(error, question)
            if advised is error:
                raise
            raise advised from error
        if self._stored is not None:
            self._stored.keep(collector.response(), {**noted, "notes": self._notes})
        return self._end(question, collector.response(), noted)

    def _noted(self, question: Ask, model: Model) -> dict[str, Any]:
        """What the footer and the metadata say beside the answer itself."""
        request = model.applied(question.request)
        system = next((turn.content for turn in (request.messages or ())[:1] if turn.role == "system"), None)
        in_force = parameters(request.sampling, model.info.defaults, system, request.reproducible)
        return {"parameters": in_force, "context_length": model.info.context_length}

    def _advised(self, error: NbllmError, question: Ask) -> NbllmError:
        """A conversation that has grown too long can be trimmed, which a single prompt cannot."""
        if not isinstance(error, ContextOverflowError) or len(question.messages) < 3:
            return error
        return error.with_advice("--trim leaves out the oldest turns, --new begins a new conversation")

    # ---- the end

    def _end(self, question: Ask, response: Response, noted: Mapping[str, Any]) -> Response:
        self._extract(response)
        metadata = record(response, noted.get("parameters", {}), self._stored.file_hash if self._stored else "")
        # An interrupt while the whole is shown must not lose what is kept.
        self._keep(response)
        turn = self._record(question, response)
        self._view.finish(response, self._footer(response, noted), metadata)
        self._autosave(turn)
        return response

    def _footer(self, response: Response, noted: Mapping[str, Any]) -> list[str]:
        length = noted.get("context_length", 0)
        line = [usage_line(response, length)] if self._desk.settings.usage or self._asked.usage else []
        return [*line, *(details(response, length) if self._asked.usage else ()), *self._notes]

    def _extract(self, response: Response) -> None:
        if not self._asked.extract or response.finish_reason not in ("stop", "length"):
            return
        from nbllm.notebook.extract import extract

        note = extract(response.text, self._desk.next_input, self._desk.run[0])
        self._notes += [note] if note else []

    def _record(self, question: Ask, response: Response) -> Turn | None:
        """Make it a turn of its conversation, unless there is none or nothing was answered."""
        if question.tree is None or not response.text:
            return None
        books = self._desk.conversations
        said: dict[str, Any] = {"cell": question.cell, "execution": question.execution, "model": response.model}
        if question.longer is not None:
            return books.record_longer(
                question.tree, question.longer, response.message, finish_reason=response.finish_reason, **said
            )
        return books.record(
            question.tree,
            question.parent,
            question.question,
            response.message,
            finish_reason=response.finish_reason,
            **said,
        )

    def _autosave(self, turn: Turn | None) -> None:
        books = self._desk.conversations
        if not self._desk.settings.autosave or turn is None or books.current is None or books.current.head is not turn:
            return
        try:
            books.save(books.current, self._desk.autosave_file(books.current.name))
        except InvalidRequestError as error:
            reason = f"{error}, or %config NbLLM.autosave = False (the answer itself is kept)"
            raise InvalidRequestError(reason) from error


def _cut(collector: Collector, reason: FinishReason) -> Response:
    """The answer so far. Without a last chunk nobody counted, except for the tokens that came."""
    response = collector.response()
    if collector.is_finished:
        return response
    usage = replace(response.usage, completion_tokens=len(response.tokens))
    return replace(response, finish_reason=reason, usage=usage)


def _not_loaded() -> list[str]:
    return ["KeyboardInterrupt: the loading was stopped; run the cell again to load the model and ask"]


def _one_line() -> list[str]:
    return ["KeyboardInterrupt: the answer was stopped; what came of it is kept"]
