"""The answers of a run that are on disk already, and those that go there."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbllm.core import EmbedRequest, GenerateRequest
from nbllm.errors import ModelLoadError
from nbllm.frames.asks import Ask, Outcome
from nbllm.frames.landing import outcome_of_response
from nbllm.session.cache import AnswerCache
from nbllm.session.cache import cache as users_cache
from nbllm.session.cachekey import engine_options, key, versions
from nbllm.session.response import Response
from nbllm.store import model_hash

if TYPE_CHECKING:
    from nbllm.session.model import Model
    from nbllm.session.stored import Entry


_AUTOMATIC: Mapping[str, Any] = {"kv_type": "automatic"}
"""Stands for whatever options were chosen, other than the usual, when a model was loaded for a run."""


class Keeping:
    """One run's way to the cache. Only whole answers are kept, those that the same request would get again.

    Attributes:
        is_on: whether there is a cache, and something that says which model it is.
    """

    def __init__(self, model: Model, cache: bool | AnswerCache) -> None:
        identity = None if cache is False else identity_of(model)
        self.is_on = identity is not None
        self._identity = identity or ""
        self._cache = cache if isinstance(cache, AnswerCache) else users_cache
        self._version = versions()
        self._model, info = model, model.info
        self._engine = engine_options(info)
        self._is_late = bool(info.model.path) and not info.kv_type  # it is loaded, if need be, with what fits then

    def key(self, ask: Ask) -> str:
        """What says that two rows have the same answer, also where nothing is kept.

        Raises:
            ParameterError: a part of the request is not plain data.
        """
        return self._key(ask, self._engine)

    def find(self, asks: Mapping[str, Ask]) -> dict[str, Outcome]:
        """What is kept of these, by key. An entry that is not what it should be is as good as none."""
        if not self.is_on or not asks:
            return {}
        found = self._found({name: name for name in asks}, asks)
        if self._is_late:
            places = {self._key(ask, _AUTOMATIC): name for name, ask in asks.items() if name not in found}
            found |= self._found(places, asks)
        return found

    def put(self, name: str, ask: Ask, response: Response | None, outcome: Outcome) -> None:
        """Keep what a row came to.

        Args:
            response: with its token ids, which the cells' conversations want.
        """
        if not self.is_on:
            return
        if response is not None and isinstance(ask.request, GenerateRequest):
            if is_whole(ask.request, response):
                for place in self._places(name, ask):
                    self._cache.put(place, response)
        elif outcome.error is None:
            numbers = _written(outcome)
            if numbers is not None:
                for place in self._places(name, ask):
                    self._cache.put_value(place, numbers)

    def _key(self, ask: Ask, engine: Mapping[str, Any]) -> str:
        return key(file_hash=self._identity, request=ask.request, version=self._version, engine=engine)

    def _found(self, places: Mapping[str, str], asks: Mapping[str, Ask]) -> dict[str, Outcome]:
        """What is kept at the places, by the keys that they are for."""
        entries = self._cache.find_many(list(places)).items()
        read = {places[place]: _read(asks[places[place]], entry) for place, entry in entries}
        return {name: outcome for name, outcome in read.items() if outcome is not None}

    def _places(self, name: str, ask: Ask) -> Sequence[str]:
        """Where an answer is kept. One of options that nobody asked for is kept for those options, and for the next
        run that asks for none; what was found before the model was loaded is not taken for that of others."""
        engine = engine_options(self._model.info) if self._is_late else {}
        return [self._key(ask, engine), self._key(ask, _AUTOMATIC)] if engine else [name]


def identity_of(model: Model) -> str | None:
    """What says which model answers, None when nothing does: then nothing is kept.

    A file's hash. A model on another server has no file here: its name and the server's address stand for it, with the
    size and the length that the server states. Whoever puts other weights of the same size under a name that was used
    has to clear the cache, or run with cache=False.
    """
    info = model.info
    if info.model.path:
        try:
            return model_hash(info.model.path)
        except ModelLoadError:  # it is gone, or replaced while it is loaded
            return None
    if not info.model.name:
        return None
    stated = (info.model.size_bytes, info.model.parameters, info.model.context_length, info.model.vocabulary_size)
    return "\n".join(("server", info.summary, info.model.name, *map(str, stated)))


def is_whole(request: GenerateRequest, response: Response) -> bool:
    """Whether the answer ended by itself or at max_tokens, and not because the context was full or time was up."""
    if response.finish_reason != "length":
        return response.finish_reason == "stop"
    most = request.sampling.max_tokens
    return most is not None and response.usage.completion_tokens >= most


def _read(ask: Ask, entry: Entry) -> Outcome | None:
    request = ask.request
    if isinstance(request, GenerateRequest):
        if entry.answer is None:
            return None
        response = entry.response(request.constraint)
        return outcome_of_response(ask, response, cached=True) if is_whole(request, response) else None
    value = entry.value
    if not isinstance(value, dict) or not isinstance(value.get("duration_s"), float):
        return None
    if isinstance(request, EmbedRequest):
        numbers: Any = _vector(value.get("vector"))
    else:
        numbers = _logprobs(value.get("logprobs"), len(request.choices))
    return None if numbers is None else Outcome(numbers, cached=True, duration_s=value["duration_s"])


def _written(outcome: Outcome) -> dict[str, Any] | None:
    import numpy as np

    if isinstance(outcome.value, tuple):
        if not all(map(math.isfinite, outcome.value)):
            return None
        return {"logprobs": list(outcome.value), "duration_s": outcome.duration_s}
    if isinstance(outcome.value, np.ndarray):
        data = outcome.value.astype("<f4").tobytes()
        return {"vector": base64.b64encode(data).decode("ascii"), "duration_s": outcome.duration_s}
    return None


def _logprobs(value: object, count: int) -> tuple[float, ...] | None:
    if not isinstance(value, list) or len(value) != count or not all(isinstance(number, float) for number in value):
        return None
    return tuple(value)


def _vector(value: object) -> Any:
    import numpy as np

    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
        return np.frombuffer(data, "<f4").astype(np.float32)
    except ValueError:
        return None
