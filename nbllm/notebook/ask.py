"""A cell's question in its place: the conversation it belongs to, and the messages that make it a request."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nbllm.core import GenerateRequest, Message
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.session.requests import Options

if TYPE_CHECKING:
    from nbllm.notebook.arguments import ChatArguments
    from nbllm.notebook.desk import Desk
    from nbllm.notebook.tree import Tree, Turn
    from nbllm.session.model import Model

_ROOM_FOR_ANSWER = 256
"""Tokens that `--trim` leaves free when max_tokens does not say how long the answer may be."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, ready for a model.

    Attributes:
        tree: the conversation, None without one.
        parent: the turn that this one will follow.
        messages: all that is sent, the question or the answer that is gone on with at the end.
        cell: the id of the cell that asks, and `execution` the number of its run.
        longer: the turn whose answer `--continue` goes on with.
    """

    tree: Tree | None
    parent: Turn | None
    question: Message
    messages: tuple[Message, ...]
    options: Options
    cell: str | None = None
    execution: int = 0
    longer: Turn | None = None

    @property
    def begun(self) -> Message | None:
        """The answer that is gone on with."""
        return None if self.longer is None else self.longer.answer

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to go on with: that answer ended by itself."""
        return self.longer is not None and self.longer.finish_reason == "stop"

    @property
    def request(self) -> GenerateRequest:
        return self.options.chat(self.messages)

    def with_template_option(self, name: str, value: object) -> Ask:
        changed = {**self.options.template_options, name: value}
        return replace(self, options=replace(self.options, template_options=changed))


def ask(asked: ChatArguments, desk: Desk) -> Ask:
    """Find the question's place. Nothing changes before `Conversations.record`.

    Raises:
        InvalidRequestError: an option is wrong, or there is no such conversation.
    """
    options = Options.of({**asked.options, **({"continue_final": True} if asked.goes_on else {})})
    if asked.goes_on and (asked.prompt or asked.no_history or asked.new):
        raise InvalidRequestError(
            "--continue goes on with the last answer and takes no text, --new, --no-history, --context or --template"
        )
    if asked.no_history:
        question = Message("user", asked.prompt)
        system = desk.settings.system if asked.system is None else asked.system
        beginning = (Message("system", system),) if system else ()
        return _checked(Ask(None, None, question, (*beginning, question), options))
    if asked.goes_on and asked.conversation is not None:
        desk.conversations.get(asked.conversation)  # one that would only begin here has nothing to go on with
    tree, parent = place(asked, desk)
    if asked.goes_on:
        return _continued(tree, options, desk)
    question = Message("user", asked.prompt)
    return _checked(Ask(tree, parent, question, (*tree.messages(parent), question), options, *desk.run))


def place(asked: ChatArguments, desk: Desk) -> tuple[Tree, Turn | None]:
    """The conversation that the cell asks in, and the turn before its question."""
    cell, execution = desk.run
    return desk.conversations.choose(
        name=asked.conversation,
        system=asked.system,
        default_system=desk.settings.system,
        new=asked.new,
        cell=cell,
        execution=execution,
    )


def _continued(tree: Tree, options: Options, desk: Desk) -> Ask:
    last = tree.head
    if last is None:
        raise InvalidRequestError("there is no answer to go on with; ask something first")
    if options.constraint is not None:
        raise InvalidRequestError("an answer of a given form cannot be gone on with; ask again with more --max-tokens")
    _check_one_answer(options)
    messages = (*tree.messages(last.parent), last.question, last.answer)
    return Ask(tree, last.parent, last.question, messages, options, *desk.run, longer=last)


def _checked(ask: Ask) -> Ask:
    """Refuse an empty question and values out of range before any model is loaded."""
    ask.options.chat(ask.question)
    _check_one_answer(ask.options)
    return ask


def _check_one_answer(options: Options) -> None:
    if options.sampling.n != 1:
        raise ParameterError("n", "a cell shows one answer; Model.chat(..., n=...) gives several")


def trimmed(ask: Ask, model: Model) -> tuple[Ask, int]:
    """Without the oldest turns that do not fit into the model's context, and how many those are."""
    length = model.info.context_length
    room = length - min(ask.options.sampling.max_tokens or _ROOM_FOR_ANSWER, length // 2)
    groups = _turns(ask.messages)
    # The fewer are left the shorter it is; each look renders and tokenizes everything, so halve instead of counting.
    dropped = bisect_left(range(len(groups) - 1), True, key=lambda num: _length(ask, groups[num:], model) <= room)
    return replace(ask, messages=_joined(ask, groups[dropped:])), dropped


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages from the first question on, each with what follows it."""
    groups: list[list[Message]] = []
    for message in messages[_num_beginning(messages) :]:
        if message.role == "user" or not groups:
            groups.append([])
        groups[-1].append(message)
    return groups


def _joined(ask: Ask, groups: Sequence[Sequence[Message]]) -> tuple[Message, ...]:
    beginning = ask.messages[: _num_beginning(ask.messages)]
    return (*beginning, *(message for group in groups for message in group))


def _num_beginning(messages: Sequence[Message]) -> int:
    """How many messages stand before the first question; they are never left out."""
    return next((index for index, message in enumerate(messages) if message.role == "user"), 0)


def _length(ask: Ask, groups: Sequence[Sequence[Message]], model: Model) -> int:
    return len(model.engine.render(replace(ask, messages=_joined(ask, groups)).request).tokens)
