"""What the answers to one request need to call tools: how calls are told from text, and what guarantees them."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nbllm.chat import constraints
from nbllm.chat.callgrammar import ToolSchemaError, call_grammar, call_or_shape_grammar
from nbllm.chat.callparser import MAX_CALLS, CallParser
from nbllm.core import GenerateRequest, Tool
from nbllm.engine.backend import Backend
from nbllm.engine.pieces import ChangedPieces, control_tokens
from nbllm.engine.prompt import Prompt
from nbllm.errors import ConstraintError, ParameterError

if TYPE_CHECKING:
    from nbllm.engine.backend import Matcher

Bind = Callable[[str], "Matcher | None"]


class Calling:
    """The tools of one request, whose prompt has them.

    Attributes:
        grammar: what the whole answer follows, when it has to be a call, or to be one or have a shape; else None.
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
        tokens = control_tokens(backend, self._form.marks)
        written = {token: mark.encode() for mark, token in tokens.items()}
        self.pieces: Mapping[int, bytes] = ChangedPieces(backend.pieces, written)
        self._shape = None if self._is_required else request.constraint
        self.grammar = self._whole_grammar(request, tokens)
        self._rest = None if self.grammar is not None else self._rest_grammar(self._tools, tokens)

    def parser(self, seed: int | None) -> CallParser:
        """For one answer. Its ids are the same when the prompt and the seed are."""
        prompt = array.array("q", self._prompt.tokens).tobytes()

        def make_id(index: int) -> str:
            return "call_" + hashlib.sha256(b"%d %d " % (seed or 0, index) + prompt).hexdigest()[:24]

        names = [tool.name for tool in self._tools]
        alone = self._shape is not None
        return CallParser(self._form, names, make_id, most=self._most, trusted=self._is_required, alone=alone)

    def binder(self, whole: Matcher | None) -> Bind | None:
        """What gives the matcher of a call that the model has begun, or None if the rest does not fit.

        Args:
            whole: the matcher of the whole answer.
        """
        rest = self._rest
        if rest is None:
            return None if self._shape is None else lambda begun: whole
        matcher = self._backend.make_matcher(rest, constraints.parser_limits())

        def bind(begun: str) -> Matcher | None:
            tokens = self._backend.tokenize(begun, add_special=False, parse_special=False) if begun else []
            return matcher if all(map(matcher.consume, tokens)) else None

        return bind

    def _whole_grammar(self, request: GenerateRequest, tokens: Mapping[str, int]) -> str | None:
        """The grammar of an answer that is not free to be anything.

        Raises:
            ParameterError: the parameters of a tool that has to be called cannot be enforced.
            ConstraintError: the shape cannot be, or all tools together are too large.
        """
        if self._shape is not None:
            return call_or_shape_grammar(self._form, self._tools, self._most, self._shape, tokens=tokens)
        if not self._is_required:
            return None
        try:
            return call_grammar(self._form, self._tools, self._most, tokens=tokens)
        except ToolSchemaError as error:
            place = [tool.name for tool in request.tools].index(error.tool)
            raise ParameterError(f"tools[{place}].function.parameters", str(error)) from error

    def _rest_grammar(self, tools: tuple[Tool, ...], tokens: Mapping[str, int]) -> str | None:
        """A tool whose schema cannot be enforced may still be called: nothing was promised."""
        try:
            return call_grammar(self._form, tools, self._most, tokens=tokens, is_opened=True)
        except ConstraintError:
            return None


def _check(request: GenerateRequest) -> None:
    if request.continue_final and request.tool_choice == "required":
        raise ParameterError("tool_choice", "a call cannot go on with the last message; leave continue_final out")
