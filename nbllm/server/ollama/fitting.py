"""Makes a prompt fit into its context as Ollama does, and joins it to what was said before.

Called in a thread: each question to the engine waits for another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nbllm.core import GenerateRequest, Message
from nbllm.errors import ContextOverflowError, InvalidRequestError
from nbllm.server.ollama.calls import Call

if TYPE_CHECKING:
    from nbllm.engine.interface import Engine

_ANSWER_SHARE = 4
"""One token in so many is left to the answer where a prompt has to be cut anyway."""
_TRIES = 4
_EARLIER = "what was said before this"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is submitted.

    Attributes:
        tokens: of the whole prompt.
        opens_reasoning: the answer begins inside a think tag; None where the engine tells the thinking apart itself.
    """

    request: GenerateRequest
    tokens: tuple[int, ...]
    opens_reasoning: bool | None = None


def fitted(engine: Engine, call: Call) -> Fitted:
    """The request, cut to the context if it has to be and may be.

    Raises:
        ContextOverflowError: it does not fit, and nothing that is left could go.
        InvalidRequestError: the engine cannot render it.
    """
    assert call.request is not None, "a call that loads has nothing to fit"
    if call.request.suffix is not None:  # of two texts around a gap none can be cut
        return Fitted(call.request, ())
    limit = min(call.room.context_length or engine.info.context_length, engine.info.context_length)
    made = _followed_on(engine, call) if call.context else _rendered(engine, call.request)
    if len(made.tokens) >= limit:
        if not call.room.truncates:
            raise _overflow(engine, len(made.tokens), limit)
        made = _cut(engine, made, call, limit)
    return _limited(made, limit)


def fitted_texts(engine: Engine, texts: Sequence[str], limit: int) -> tuple[str, ...]:
    """The texts, each cut at its end to the tokens that an embedding may have."""
    return tuple(_beginning(engine, text, limit) for text in texts)


def _rendered(engine: Engine, request: GenerateRequest) -> Fitted:
    return Fitted(request, engine.render(request).tokens)


def _followed_on(engine: Engine, call: Call) -> Fitted:
    """The turn as the model's template writes it after an answer, with the tokens of that answer before it."""
    assert call.request is not None
    assert call.request.messages is not None, "context goes with neither raw nor suffix"
    engine.render(GenerateRequest(tokens=call.context))  # refuses ids that are none of this model's
    mark = tuple(engine.tokenize(_EARLIER))
    earlier = (Message("user", _EARLIER), Message("assistant", _EARLIER, tokens=mark))
    turn = engine.render(replace(call.request, messages=(*earlier, *call.request.messages)))
    start = _end_of_last(mark, turn.tokens)
    tokens = (*call.context, *(turn.tokens[start:] if start else _alone(engine, call.request)))
    return Fitted(_of_tokens(call.request, tokens), tokens, turn.opens_reasoning)


def _alone(engine: Engine, request: GenerateRequest) -> tuple[int, ...]:
    """The turn as if nothing had been said: for a template that rewrites answers."""
    return engine.render(request).tokens


def _end_of_last(mark: tuple[int, ...], tokens: tuple[int, ...]) -> int:
    """Where the mark's last place ends; 0 if it is not there."""
    for start in range(len(tokens) - len(mark), 0, -1):
        if tokens[start : start + len(mark)] == mark:
            return start + len(mark)
    return 0


def _of_tokens(request: GenerateRequest, tokens: tuple[int, ...]) -> GenerateRequest:
    plain = replace(request, messages=None, text=None, tokens=tokens, template=None)
    return replace(plain, template_options={}, parse_special=False)


def _limited(made: Fitted, limit: int) -> Fitted:
    """With an answer that ends where the context does."""
    params = made.request.sampling
    most = limit - len(made.tokens)
    if params.max_tokens is not None and params.max_tokens <= most:
        return made
    return replace(made, request=replace(made.request, sampling=replace(params, max_tokens=most)))


# ---- cutting


def _cut(engine: Engine, made: Fitted, call: Call, limit: int) -> Fitted:
    wanted = made.request.sampling.max_tokens or limit
    target = max(1, limit - min(wanted, limit // _ANSWER_SHARE) - 1)
    if made.request.messages is not None:
        return _shortened(engine, made.request, made.request.messages, target, limit)
    kept = min(call.room.num_keep, target // 2)
    tokens = (*made.tokens[:kept], *made.tokens[len(made.tokens) - target + kept :])
    return replace(made, request=_of_tokens(made.request, tokens), tokens=tokens)


def _shortened(
    engine: Engine, request: GenerateRequest, messages: tuple[Message, ...], target: int, limit: int
) -> Fitted:
    """Without the oldest turns, system texts aside; where the last turn alone is too long, without its beginning."""
    starts = [place for place, turn in enumerate(messages[:-1]) if turn.role == "user"][1:]
    forms = [_since(messages, start) for start in (*starts, len(messages) - 1)]

    def fits(form: tuple[Message, ...]) -> bool:
        return len(engine.render(replace(request, messages=form)).tokens) <= target

    low, high = 0, len(forms)
    while low < high:  # the fewest turns that have to go
        middle = (low + high) // 2
        low, high = (low, middle) if fits(forms[middle]) else (middle + 1, high)
    if low < len(forms):
        return _rendered(engine, replace(request, messages=forms[low]))
    last = _rendered(engine, replace(request, messages=forms[-1]))
    return _end_of_turn(engine, last, target) or _whole(engine, last, limit)


def _since(messages: tuple[Message, ...], start: int) -> tuple[Message, ...]:
    system = tuple(turn for turn in messages[:start] if turn.role in ("system", "developer"))
    return (*system, *messages[start:])


def _end_of_turn(engine: Engine, made: Fitted, target: int) -> Fitted | None:
    """Without the beginning of the last message; None if there is not so much of it."""
    messages = made.request.messages or ()
    last = messages[-1]
    tokens = engine.tokenize(last.content)
    excess = len(made.tokens) - target
    for attempt in range(_TRIES):  # what is cut in two may become more tokens
        content = engine.detokenize(tokens[excess + attempt * 8 :]).lstrip("\N{REPLACEMENT CHARACTER}")
        if not content:
            return None
        form = (*messages[:-1], replace(last, content=content))
        shorter = _rendered(engine, replace(made.request, messages=form))
        if len(shorter.tokens) <= target:
            return shorter
    return None


def _whole(engine: Engine, made: Fitted, limit: int) -> Fitted:
    """It, if it leaves any room at all: the answer will be short."""
    if len(made.tokens) >= limit:
        raise _overflow(engine, len(made.tokens), limit)
    return made


def _overflow(engine: Engine, num_tokens: int, limit: int) -> InvalidRequestError:
    if limit < engine.info.context_length:
        return InvalidRequestError(
            f"the prompt has {num_tokens:,} tokens and num_ctx is {limit:,}: shorten it, or ask for a larger num_ctx"
        )
    return ContextOverflowError(num_tokens, limit)


def _beginning(engine: Engine, text: str, limit: int) -> str:
    tokens = engine.tokenize(text)
    for margin in (8, 16, 32, 64):  # tokens that begin and end every text, and what is cut in two
        if len(tokens) + 8 <= limit:
            return text
        cut = engine.detokenize(tokens[: max(1, limit - margin)]).rstrip("\N{REPLACEMENT CHARACTER}")
        if cut and len(engine.tokenize(cut)) + 8 <= limit:
            return cut
    raise InvalidRequestError(f"the input cannot be cut to the {limit:,} tokens of the context: shorten it")
