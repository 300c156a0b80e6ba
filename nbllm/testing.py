"""Fakes that behave as the real things do, for tests that need no model: a toy model, and an engine with a script.

`ToyBackend` stands below the real engine in llama.cpp's place. What its model says next is a function of the token ids
that are *stored* in the slot, position by position, so that a slip in slots, forks, cuts, restores or positions changes
the text. `ScriptedEngine` stands in the engine's place: it says what a test enqueued, and remembers what it was asked.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.core import (
    Chunk,
    EmbedRequest,
    EngineInfo,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    RenderedPrompt,
    Request,
    Row,
    SamplingParams,
    ScoreRequest,
    StepStatus,
    Timings,
    TokenLogprob,
    Usage,
)
from nbllm.engine.backend import Context
from nbllm.engine.defaults import STATED
from nbllm.engine.interface import EngineStats, OnChunk
from nbllm.engine.local import LocalEngine
from nbllm.engine.plan import Plan
from nbllm.engine.prompt import Prompts
from nbllm.errors import ConstraintError, EngineClosedError, EngineError, InvalidRequestError, ParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ScriptedEngine", "ToyBackend", "ToyContext", "toy_engine"]

VOCABULARY_SIZE = 262
"""A token for each byte, and six special ones: llguidance's byte vocabulary, so that constraints work on the toy."""
EMBEDDING_LENGTH = 16
BOS, IM_START, IM_END, EOS = 256, 257, 258, 261
SPECIAL_TEXTS: Mapping[int, str] = {BOS: "<s>", IM_START: "<|im_start|>", IM_END: "<|im_end|>", EOS: "</s>"}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NAMES = {"bos": BOS, "eos": EOS, "eot": IM_END}
_MASK = 2**64 - 1


class ToyBackend:
    """A model of bytes, without weights. Implements `engine.backend.Backend`.

    Args:
        chat_template: None makes it a base model.
        window: tokens back that a layer looks; a prefix shorter than what left the window cannot be cut to.
        recurrent: the state has no middle, so that nothing can be cut off at all.
        ends: how likely an answer is to end, as what is added to the logits of the end tokens.
        fail_after: evaluate so many steps, then raise EngineError.
        max_batch: tokens that a step can have.
    """

    vocabulary_size = VOCABULARY_SIZE
    embedding_length = EMBEDDING_LENGTH
    adds_bos = True
    pooling = "mean"

    def __init__(
        self,
        *,
        chat_template: str | None = CHATML,
        window: int | None = None,
        recurrent: bool = False,
        ends: float = 0.0,
        fail_after: int | None = None,
        max_batch: int = 512,
        recommended: SamplingParams | None = None,
    ) -> None:
        self.chat_template = chat_template
        self.window, self.recurrent, self.ends = window, recurrent, ends
        self.fail_after, self.max_batch = fail_after, max_batch
        self.contexts: list[ToyContext] = []
        self.is_closed = False
        self.pieces: Mapping[int, bytes] = {
            token: bytes([token]) if token < BOS else b"" for token in range(VOCABULARY_SIZE)
        }
        self._recommended = recommended or SamplingParams()

    # ---- vocabulary

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        try:
            ids = [BOS] if add_special else []
            for piece, token in _split_special(text) if parse_special else [(text, None)]:
                ids += piece.encode("utf-8") if token is None else [token]
        except UnicodeEncodeError as error:
            raise InvalidRequestError("the text has a lone surrogate, which is not a character") from error
        return ids

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.pieces[token] for token in tokens)

    def is_end(self, token: int) -> bool:
        return token in (IM_END, EOS)

    def check_ids(self, tokens: Sequence[int], param: str) -> None:
        for token in tokens:
            if not 0 <= token < VOCABULARY_SIZE:
                raise ParameterError(param, f"{token} is not a token of this model: its ids go from 0 to 261")

    def special(self, name: str) -> int | None:
        return _NAMES.get(name)

    def special_text(self, name: str) -> str:
        return SPECIAL_TEXTS[_NAMES[name]] if name in _NAMES else ""

    def control_texts(self) -> tuple[str, ...]:
        return tuple(SPECIAL_TEXTS.values())

    def recommended_sampling(self) -> SamplingParams:
        return self._recommended

    # ---- parts

    def make_context(self, *, kv_tokens: int, num_slots: int, unified: bool, kv_type: str) -> ToyContext:
        context = ToyContext(self, kv_tokens=kv_tokens, num_slots=num_slots, unified=unified)
        self.contexts.append(context)
        return context

    def make_sampler(self, params: SamplingParams, prompt_tail: Sequence[int], max_generated: int) -> ToySampler:
        return ToySampler(params, prompt_tail)

    def make_matcher(self, grammar: str, limits: Any = None) -> ToyMatcher:
        return ToyMatcher(grammar, limits)

    def close(self) -> None:
        if not all(context.is_closed for context in self.contexts):
            raise EngineError("the model was closed before its contexts")
        self.is_closed = True


class _Cell(NamedTuple):
    """One stored token. `state` sums up this token and all before it; shared cells are the same object."""

    token: int
    state: int


class _Stored:
    """What a slot holds. Tokens before `oldest` have left the window."""

    def __init__(self) -> None:
        self.cells: list[_Cell] = []
        self.oldest = 0

    @property
    def state(self) -> int:
        return self.cells[-1].state if self.cells else 0

    def push(self, token: int, window: int | None) -> None:
        self.cells.append(_Cell(token, _mixed(self.state, token, len(self.cells))))
        if window is not None:
            self.oldest = max(self.oldest, len(self.cells) - window)


class ToyContext:
    """Strict about positions, slots and threads, and as unhelpful as llama.cpp when it is full, aborted or uncuttable.

    Attributes:
        num_steps: batches evaluated.
        num_evaluated: tokens evaluated, paddings included.
        during_decode: called in the middle of a step, as another thread might act then.
    """

    def __init__(self, backend: ToyBackend, *, kv_tokens: int, num_slots: int, unified: bool) -> None:
        self.max_batch, self.num_slots = backend.max_batch, num_slots
        self.num_steps = self.num_evaluated = 0
        self.most_cells = 0
        self.is_closed = False
        self.threads = 0
        self.during_decode: Callable[[], None] | None = None
        self._backend, self._unified, self._kv_tokens = backend, unified, kv_tokens
        self._slots = [_Stored() for _ in range(num_slots)]
        self._outputs: dict[int, int] = {}
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._aborted = False
        self._thread: int | None = None

    @property
    def pool_capacity(self) -> int:
        return self._kv_tokens if self._unified else self._kv_tokens * self.num_slots

    @property
    def cells(self) -> int:
        """Cells in use, a shared one counted once."""
        return len({id(cell) for stored in self._slots for cell in stored.cells})

    def tokens(self, slot: int) -> list[int]:
        """What the slot holds."""
        return [cell.token for cell in self._slots[slot].cells]

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def decode(self, rows: Sequence[Row], *, embeddings: bool = False) -> StepStatus:
        self._check_thread()
        self._check_rows(rows)
        if not self._has_room(rows):
            return StepStatus.FULL
        if self.during_decode is not None:
            self.during_decode()
        if self._aborted:  # what was computed until then stays in the memory, as llama.cpp leaves it
            self._evaluate(rows[: len(rows) // 2])
            return StepStatus.ABORTED
        self.num_steps += 1
        if self._backend.fail_after is not None and self.num_steps > self._backend.fail_after:
            raise EngineError(f"the toy model was told to fail after {self._backend.fail_after} steps")
        self._evaluate(rows)
        return StepStatus.OK

    def abort(self, wanted: bool = True) -> None:
        self._aborted = wanted

    def logits(self, row: int) -> NDArray[np.float32]:
        """Writable, as llama.cpp's are: what a mask writes, the sampler sees."""
        if row not in self._rows:
            self._rows[row] = _logits(self._output(row), self._backend.ends)
        return self._rows[row]

    def embedding(self, row: int) -> NDArray[np.float32]:
        return _noise(self._output(row), EMBEDDING_LENGTH)

    def cut(self, slot: int, length: int) -> bool:
        self._check_thread()
        stored = self._slots[slot]
        held = len(stored.cells)
        if 0 < length < held and self._is_cuttable(stored, length):
            del stored.cells[length:]
        elif length == 0 or length != held:
            self.forget(slot)
            return length == 0
        return True

    def forget(self, slot: int) -> None:
        self._check_thread()
        self._slots[slot] = _Stored()

    def fork(self, source: int, target: int, length: int) -> bool:
        if not self._unified:
            return self.restore(target, self.save(source), length)
        copy = _Stored()
        copy.cells, copy.oldest = list(self._slots[source].cells), self._slots[source].oldest
        self._slots[target] = copy
        return self.cut(target, length)

    def save(self, slot: int) -> bytes:
        self._check_thread()
        import numpy as np

        stored = self._slots[slot]
        return np.array([stored.oldest, *self.tokens(slot)], np.int32).tobytes()

    def restore(self, slot: int, state: bytes, length: int) -> bool:
        import numpy as np

        self.forget(slot)
        oldest, *tokens = np.frombuffer(state, np.int32).tolist()
        if not self._has_room([Row(token, place, slot, False) for place, token in enumerate(tokens)]):
            return False
        for token in tokens:
            self._slots[slot].push(token, self._backend.window)
        self._slots[slot].oldest = oldest
        self._note_cells()
        return self.cut(slot, length)

    def close(self) -> None:
        self.is_closed = True

    # ---- inside

    def _check_thread(self) -> None:
        if self.is_closed:
            raise EngineError("the context is closed")
        self._thread = self._thread or threading.get_ident()
        if self._thread != threading.get_ident():
            raise EngineError("two threads use one context, which would abort the process")

    def _check_rows(self, rows: Sequence[Row]) -> None:
        if not 0 < len(rows) <= self.max_batch:
            raise EngineError(f"a batch of {len(rows)} tokens; 1 to {self.max_batch} are allowed")
        expected = {slot: len(stored.cells) for slot, stored in enumerate(self._slots)}
        for row in rows:
            if expected.get(row.slot) != row.position or not 0 <= row.token < VOCABULARY_SIZE:
                raise EngineError(f"{row} does not continue its slot, which holds {expected.get(row.slot)} tokens")
            expected[row.slot] += 1

    def _has_room(self, rows: Sequence[Row]) -> bool:
        if self._unified:
            return self.cells + len(rows) <= self._kv_tokens
        held = [len(stored.cells) + sum(row.slot == slot for row in rows) for slot, stored in enumerate(self._slots)]
        return max(held) <= self._kv_tokens

    def _evaluate(self, rows: Sequence[Row]) -> None:
        self._outputs, self._rows = {}, {}
        for index, row in enumerate(rows):
            self._slots[row.slot].push(row.token, self._backend.window)
            if row.output:
                self._outputs[index] = self._slots[row.slot].state
        self.num_evaluated += len(rows)
        self._note_cells()

    def _note_cells(self) -> None:
        self.most_cells = max(self.most_cells, self.cells)

    def _output(self, row: int) -> int:
        self._check_thread()
        if row not in self._outputs:
            raise EngineError(f"row {row} has no output")
        return self._outputs[row]

    def _is_cuttable(self, stored: _Stored, length: int) -> bool:
        if self._backend.recurrent:
            return False
        return self._backend.window is None or stored.oldest <= max(0, length - self._backend.window)


class ToySampler:
    """Chooses as llama.cpp's chain does, more or less: bias, penalties, truncation, temperature, a seeded draw."""

    def __init__(self, params: SamplingParams, prompt_tail: Sequence[int]) -> None:
        import numpy as np

        self._params = params
        window = params.repeat_last_n or 0
        self._recent: deque[int] = deque(prompt_tail[-window:] if window else (), maxlen=window)
        self._counts = np.zeros(VOCABULARY_SIZE, np.float32)
        self._random = np.random.default_rng(params.seed)
        penalties = (params.presence_penalty, params.frequency_penalty, (params.repeat_penalty or 1.0) - 1.0)
        self.has_memory = any(penalties)
        self.is_closed = False

    def sample(self, context: Context, row: int) -> int:
        import numpy as np

        logits = self._penalized(context.logits(row).astype(np.float64))
        if not self._params.temperature:
            token = int(logits.argmax())
        else:
            chances = _truncated(_softmax(logits), self._params)
            chances = _softmax(np.log(np.maximum(chances, 1e-300)) / self._params.temperature)
            token = int(self._random.choice(VOCABULARY_SIZE, p=chances))
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        self._counts[token] += 1
        self._recent.append(token)

    def close(self) -> None:
        self.is_closed = True

    def _penalized(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        params = self._params
        for token, bias in params.logit_bias.items():
            logits[token] += -float("inf") if bias <= -100 else 1e4 if bias >= 100 else bias
        repeat = params.repeat_penalty or 1.0
        for token in set(self._recent):
            logits[token] = logits[token] / repeat if logits[token] > 0 else logits[token] * repeat
        logits -= (params.presence_penalty or 0.0) * (self._counts > 0)
        logits -= (params.frequency_penalty or 0.0) * self._counts
        return logits


class ToyMatcher:
    """A real llguidance matcher over the toy's bytes."""

    def __init__(self, grammar: str, limits: Any) -> None:
        from llguidance import LLMatcher, LLTokenizer

        self._matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0, limits=limits)
        if self._matcher.is_error():
            raise ConstraintError(f"the constraint is not supported: {self._matcher.get_error().splitlines()[0]}")

    def allows(self, token: int) -> bool:
        return bool(self._matcher.validate_tokens([token]) == 1)

    def mask(self, logits: NDArray[np.float32]) -> None:
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        logits[np.unpackbits(bits, count=VOCABULARY_SIZE, bitorder="little") == 0] = -np.inf

    def consume(self, token: int) -> bool:
        return bool(self._matcher.consume_token(token))

    def forced(self) -> list[int]:
        return list(self._matcher.compute_ff_tokens())

    @property
    def is_complete(self) -> bool:
        return bool(self._matcher.is_stopped())


class _ToyEngine(LocalEngine):
    """Has a decode thread of its own, which ends with it: a later real model must not find a toy's settings."""

    def close(self) -> None:
        super().close()
        if os.getpid() == self._pid:  # in a forked child the thread is not there, and what it locked stays locked
            self._driver.stop()


def toy_engine(
    backend: ToyBackend | None = None,
    *,
    context_length: int = 512,
    max_sequences: int = 4,
    kv_tokens: int | None = None,
    store_bytes: int = 2**20,
    **options: Any,
) -> LocalEngine:
    """The real engine, in a thread of its own, over a toy model. `options` are those of `ToyBackend`."""
    from nbllm.config import load_config
    from nbllm.engine.driver import Driver

    backend = backend or ToyBackend(**options)
    pool = kv_tokens or context_length * max_sequences
    plan = Plan(
        context_length=context_length,
        max_sequences=max_sequences,
        kv_tokens=pool,
        kv_type="f16",
        store_bytes=store_bytes,
        fixed_tokens=context_length,
        summary="toy: bytes without a meaning",
    )
    return _ToyEngine(backend, _TOY_MODEL, plan, Driver(load_config().cores_file), threads=1)


_TOY_MODEL = ModelInfo(
    name="toy",
    path="toy.gguf",
    size_bytes=0,
    architecture="toy",
    context_length=2**20,
    vocabulary_size=VOCABULARY_SIZE,
    embedding_length=EMBEDDING_LENGTH,
    has_chat_template=True,
)

Piece = str | Chunk | BaseException


@dataclass(frozen=True, slots=True)
class _Script:
    """What one answer will be."""

    pieces: tuple[Piece, ...]
    waits: bool


@dataclass(eq=False, slots=True)
class ScriptedTicket:
    """A request that a ScriptedEngine answered; the answers that wait for a cancel are in `pending`."""

    on_chunk: OnChunk
    pending: list[Chunk] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return not self.pending

    def cancel(self) -> None:
        pending, self.pending = self.pending, []
        for chunk in pending:
            self.on_chunk(chunk)


class ScriptedEngine:
    """Implements `engine.interface.Engine`: gives out what was enqueued, at once and in the caller's thread.

    Attributes:
        requests: what was submitted, in order.
        tickets: what `submit` gave back.
    """

    def __init__(self, model: ModelInfo = _TOY_MODEL) -> None:
        self.requests: list[Request] = []
        self.tickets: list[ScriptedTicket] = []
        self.is_closed = False
        self.info = EngineInfo(
            model=replace(model, loaded=True),
            context_length=4096,
            max_sequences=4,
            kv_tokens=16384,
            kv_type="f16",
            gpu_layers=0,
            defaults=STATED,
            summary="scripted",
        )
        self._scripts: deque[_Script] = deque()
        self._backend = ToyBackend()
        self._prompts = Prompts(self._backend)

    def enqueue(self, answer: Piece | Iterable[Piece], *, until_cancelled: bool = False) -> None:
        """Say what the next answer is; a request for `n` answers takes n of them.

        Args:
            answer: a text, an exception, or pieces: texts, chunks and, last, an exception that ends the answer. An
                exception alone is raised by `submit`.
            until_cancelled: after the pieces the answer hangs until its ticket is cancelled.
        """
        pieces = (answer,) if isinstance(answer, str | Chunk | BaseException) else tuple(answer)
        self._scripts.append(_Script(pieces, until_cancelled))

    def submit(self, request: Request, on_chunk: OnChunk) -> ScriptedTicket:
        if self.is_closed:
            raise EngineClosedError("the model was closed; load it again with nbllm.load")
        self.requests.append(request)
        ticket = ScriptedTicket(on_chunk)
        for index, script in enumerate(self._next_scripts(request)):
            if len(script.pieces) == 1 and isinstance(script.pieces[0], BaseException):
                raise script.pieces[0]
            *chunks, last = self._chunks(request, script, index)
            ticket.pending.append(last)
            for chunk in chunks if script.waits else [*chunks, ticket.pending.pop()]:
                on_chunk(chunk)
        for chunk in _numbers(request):
            on_chunk(chunk)
        self.tickets.append(ticket)
        return ticket

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        return self._backend.tokenize(text, add_special=False, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._backend.detokenize(tokens).decode("utf-8", errors="replace")

    def render(self, request: GenerateRequest) -> RenderedPrompt:
        return self._prompts.prepare(request).rendered

    def stats(self) -> EngineStats:
        return EngineStats(num_running=sum(not ticket.is_done for ticket in self.tickets))

    def close(self) -> None:
        self.is_closed = True

    def _next_scripts(self, request: Request) -> list[_Script]:
        wanted = request.sampling.n if isinstance(request, GenerateRequest) else 0
        if wanted > len(self._scripts):
            raise EngineError("the script is at its end: enqueue an answer for each one that is asked for")
        return [self._scripts.popleft() for _ in range(wanted)]

    def _chunks(self, request: Request, script: _Script, index: int) -> Iterator[Chunk]:
        """The pieces as chunks; the last one always has a finish_reason."""
        reason: FinishReason = "interrupted" if script.waits else "stop"
        error: BaseException | None = None
        tokens = 0
        for piece in script.pieces:
            if isinstance(piece, BaseException):
                reason, error = "error", piece
                continue
            chunk = Chunk(text=piece, tokens=tuple(self.tokenize(piece))) if isinstance(piece, str) else piece
            tokens += len(chunk.tokens)
            yield replace(chunk, index=index)
            if chunk.finish_reason is not None:
                return
        prompt = len(self.render(request).tokens) if isinstance(request, GenerateRequest) else 0
        usage = Usage(prompt_tokens=prompt, completion_tokens=tokens)
        yield Chunk(index=index, finish_reason=reason, error=error, usage=usage, timings=Timings(), seed=0)


def _numbers(request: Request) -> Iterator[Chunk]:
    """Answers to requests for numbers, made from the texts: the same text has the same vector."""
    if isinstance(request, EmbedRequest):
        import numpy as np

        for index, text in enumerate(request.texts):
            digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
            vector = _noise(int.from_bytes(digest, "little"), EMBEDDING_LENGTH)
            unit = (vector / np.linalg.norm(vector)).astype(np.float32)
            yield Chunk(index=index, finish_reason="stop", embedding=unit, usage=Usage(prompt_tokens=len(text)))
    elif isinstance(request, ScoreRequest):
        entries = tuple(TokenLogprob(byte, bytes([byte]), -1.0) for byte in request.continuation.encode())
        yield Chunk(finish_reason="stop", token_logprobs=entries, usage=Usage(prompt_tokens=len(request.prompt)))


def _split_special(text: str) -> Iterator[tuple[str, int | None]]:
    import re

    by_text = {special: token for token, special in SPECIAL_TEXTS.items()}
    for piece in re.split("(" + "|".join(map(re.escape, by_text)) + ")", text):
        yield piece, by_text.get(piece)


def _mixed(state: int, token: int, position: int) -> int:
    """A hash of a prefix, from that of the prefix without its last token."""
    mixed = (state ^ (token * 0x9E3779B97F4A7C15) ^ (position * 0xC2B2AE3D27D4EB4F)) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def _noise(state: int, count: int) -> NDArray[np.float32]:
    import numpy as np

    return np.random.default_rng(state).standard_normal(count, np.float32)


def _logits(state: int, ends: float) -> NDArray[np.float32]:
    """Noise, in which letters are likelier than other bytes and parts of characters are rare."""
    logits = 2 * _noise(state, VOCABULARY_SIZE)
    logits[:32] -= 6
    logits[97:123] += 2
    logits[127:256] -= 2
    logits[256:] -= 20
    logits[[IM_END, EOS]] += 19 + ends
    return logits


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    chances = np.exp(logits - logits.max())
    return np.asarray(chances / chances.sum(), np.float64)


def _truncated(chances: NDArray[np.float64], params: SamplingParams) -> NDArray[np.float64]:
    """What top_k, typical_p, top_p and min_p leave, each of them of what the one before left."""
    import numpy as np

    order = np.argsort(-chances, kind="stable")
    if params.top_k:
        chances[order[params.top_k :]] = 0
    if params.typical_p is not None and params.typical_p < 1.0:
        surprise = -np.log(np.maximum(chances, 1e-300))
        unusual = np.abs(surprise - float((chances * surprise).sum()))
        chances = _nucleus(chances, np.argsort(np.where(chances > 0, unusual, np.inf)), params.typical_p)
    if params.top_p is not None and params.top_p < 1.0:
        chances = _nucleus(chances, np.argsort(-chances, kind="stable"), params.top_p)
    if params.min_p:
        chances[chances < params.min_p * chances.max()] = 0
    return np.asarray(chances / chances.sum(), np.float64)


def _nucleus(chances: NDArray[np.float64], order: NDArray[np.intp], mass: float) -> NDArray[np.float64]:
    """The first tokens in `order` that together have `mass` of what is left; at least one."""
    import numpy as np

    before = np.cumsum(chances[order]) - chances[order]
    chances[order[before >= mass * chances.sum()]] = 0
    return chances
