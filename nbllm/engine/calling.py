"""What the answers to one request need to call tools: how calls are told from text, and what guarantees them."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from nbllm.chat import constraints
from nbllm.chat.callgrammar import call_grammar
from nbllm.chat.callparser import MAX_CALLS, CallParser
from nbllm.core import GenerateRequest, Tool
from nbllm.engine.backend import Backend
from nbllm.engine.prompt import Prompt
from nbllm.errors import ConstraintError, ParameterError

if TYPE_CHECKING:
    from nbllm.engine.backend import Matcher

Bind = Callable[[str], "Matcher | None"]


class Calling:
    """The tools of one request, whose prompt has them.

    Attributes:
        grammar: what the whole answer follows, when it has to be a call; else None.
        pieces: the vocabulary's, with a text for control tokens that are a part of a call.
    """

    def __init__(self, backend: Backend, request: GenerateRequest, prompt: Prompt) -> None:
        assert prompt.calls is not None, "a prompt with tools says how they are called"
        _check(request)
        self._backend, self._prompt, self._form = backend, prompt, prompt.calls
        self._is_required = request.tool_choice == "required"
        one_only = request.forced_tool is not None or not request.parallel_tool_calls
        self._most = 1 if one_only else MAX_CALLS
        self._tools = tuple(tool for tool in request.tools if request.forced_tool in (None, tool.name))
        tokens = self._tokens()
        self.pieces: Mapping[int, bytes] = _Pieces(backend.pieces, tokens)
        self.grammar = call_grammar(self._form, self._tools, self._most, tokens=tokens) if self._is_required else None
        self._rest = None if self._is_required else self._rest_grammar(self._tools, tokens)

    def parser(self, seed: int | None) -> CallParser:
        """For one answer. Its ids are the same when the prompt and the seed are."""
        prompt = array.array("q", self._prompt.tokens).tobytes()

        def make_id(index: int) -> str:
            return "call_" + hashlib.sha256(b"%d %d " % (seed or 0, index) + prompt).hexdigest()[:24]

        names = [tool.name for tool in self._tools]
        return CallParser(self._form, names, make_id, most=self._most, trusted=self._is_required)

    def binder(self) -> Bind | None:
        """What gives the matcher of a call that the model has begun, or None if the rest does not fit."""
        rest = self._rest
        if rest is None:
            return None
        matcher = self._backend.make_matcher(rest, constraints.parser_limits())

        def bind(begun: str) -> Matcher | None:
            tokens = self._backend.tokenize(begun, add_special=False, parse_special=False) if begun else []
            return matcher if all(map(matcher.consume, tokens)) else None

        return bind

    def _rest_grammar(self, tools: tuple[Tool, ...], tokens: Mapping[str, int]) -> str | None:
        """A tool whose schema cannot be enforced may still be called: nothing was promised."""
        try:
            return call_grammar(self._form, tools, self._most, tokens=tokens, is_opened=True)
        except ConstraintError:
            return None

    def _tokens(self) -> dict[str, int]:
        """The marks of a call that are one token of this vocabulary."""
        found = {mark: self._backend.tokenize(mark, add_special=False, parse_special=True) for mark in self._form.marks}
        return {mark: ids[0] for mark, ids in found.items() if len(ids) == 1}


class _Pieces(Mapping[int, bytes]):
    """The pieces of a vocabulary, a few of them changed."""

    def __init__(self, pieces: Mapping[int, bytes], tokens: Mapping[str, int]) -> None:
        self._pieces = pieces
        self._changed = {token: mark.encode() for mark, token in tokens.items()}

    def __getitem__(self, token: int) -> bytes:
        return self._changed[token] if token in self._changed else self._pieces[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def _check(request: GenerateRequest) -> None:
    if request.constraint is not None:
        raise ParameterError(
            "tools", "do not go with response_format or another constraint; leave one out, or set tool_choice='none'"
        )
    if request.continue_final and request.tool_choice == "required":
        raise ParameterError("tool_choice", "a call cannot go on with the last message; leave continue_final out")
