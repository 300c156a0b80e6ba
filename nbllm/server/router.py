"""From the name of a model to an engine that answers: a kernel's, a runner's, or another server's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import asdict, replace

from nbllm.config import Config
from nbllm.core import Request
from nbllm.errors import EngineDeadError, EngineError
from nbllm.runner.spec import Key, LoadOptions, RunnerSpec
from nbllm.server.flight import Flight, FrozenError
from nbllm.server.kernels import SIGN_WITHIN_S, KernelEngines
from nbllm.server.naming import ModelNames, Target
from nbllm.server.wording import for_clients
from nbllm.store.hashes import model_hash

if TYPE_CHECKING:
    from nbllm.engine.interface import Engine
    from nbllm.runner.client import RemoteEngine
    from nbllm.runner.supervisor import Lease, Supervisor
_T = TypeVar("_T")
_USUAL = asdict(LoadOptions())
_logger = logging.getLogger("nbllm.server")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a request wants its engine.

    Attributes:
        may_use_kernels: whether its key opens the engines that live in kernels.
        keep_alive_s: how long the model stays loaded afterwards; None is the server's default, negative for ever.
        context_length: tokens that the engine must have room for; the length that the model has learnt is enough.
    """

    may_use_kernels: bool = True
    keep_alive_s: float | None = None
    context_length: int | None = None


class Router:
    """Finds the engine for each request. To be used from the event loop only.

    Args:
        config: read afresh for each request, so that a new alias needs no restart.
        options: what runners load models with.
        endpoints: engines of other servers by the name of their model.

    Attributes:
        names: what clients may call the models.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        options: LoadOptions,
        supervisor: Supervisor,
        kernels: KernelEngines,
        endpoints: Mapping[str, Engine],
    ) -> None:
        self._config, self._options = config, options
        self.names = ModelNames(config, endpoints)
        self._too_short: set[Path | None] = set()
        self._lengths: dict[Key, int] = {}
        self._sources: dict[Path, Path] = {}
        self.supervisor, self.kernels, self.endpoints = supervisor, kernels, endpoints

    async def target(self, name: str, *, by_any: bool = True, also: Sequence[str] = ()) -> Target:
        """What `name` stands for; see `ModelNames.target`.

        Raises:
            ModelNotFoundError: nothing; the message has the closest names.
            ModelLoadError: a file that its header says cannot be loaded.
            ParameterError: it is no name at all.
        """
        target = await asyncio.to_thread(self.names.target, name, by_any=by_any, also=also)
        self.check_length(target)
        return target

    async def listed(self) -> dict[str, Target]:
        """What can be asked for, by each of its names."""
        return await asyncio.to_thread(self.names.listed)

    def source_of(self, path: Path) -> Path:
        """The model's own file, of one that a runner was given to load."""
        return self._sources.get(path, path)

    def check_length(self, target: Target) -> None:
        """Warn, once for each file, of a context that is longer than the model has learnt to use."""
        wanted = self._options_of(target).context_length or 0
        if 0 < target.context_length < wanted and target.path not in self._too_short:
            self._too_short.add(target.path)
            _logger.warning(
                "nbllm: %s was trained for a context of %s tokens; with context_length=%d what it says about longer "
                "texts may be nonsense",
                target.name,
                f"{target.context_length:,}",
                wanted,
            )

    async def open(self, target: Target, request: Request, wish: Wish) -> Flight:
        """Submit a request to the engine that is best for it, waiting for a load if need be.

        Raises:
            InvalidRequestError: the engine cannot do what is asked.
            ModelError: the model cannot be loaded.
            EngineError: no engine could be had in time, or it died.
        """
        with for_clients(target):
            return await self._open(target, request, wish)

    async def ask(self, target: Target, wish: Wish, question: Callable[[Engine], _T]) -> _T:
        """Something else than a request: to count tokens, say. `question` is called in a thread.

        Raises what `open` does.
        """
        with for_clients(target):
            return await self._ask(target, wish, question)

    async def close(self) -> None:
        self.kernels.close()
        await self.supervisor.close()
        for engine in self.endpoints.values():
            engine.close()

    # ---- inside

    async def _open(self, target: Target, request: Request, wish: Wish) -> Flight:
        if target.path is None:
            return await Flight.begin(self.endpoints[target.name], request)
        if wish.may_use_kernels:
            for engine in await self._in_kernels(target, wish):
                try:
                    flight = await Flight.begin(engine, request, sign_within_s=SIGN_WITHIN_S)
                except FrozenError:
                    self.kernels.pass_over(engine)
                except EngineError:
                    continue  # it went away; nothing of the request was done
                else:
                    self.kernels.used(engine)
                    return flight
        try:
            return await self._open_runner(target, request, wish)
        except EngineDeadError:  # it died before it had taken the request in, which a new one can do
            return await self._open_runner(target, request, wish)

    async def _ask(self, target: Target, wish: Wish, question: Callable[[Engine], _T]) -> _T:
        if target.path is None:
            return await asyncio.to_thread(question, self.endpoints[target.name])
        if wish.may_use_kernels:
            for kernel in await self._in_kernels(target, wish):
                try:
                    return await asyncio.to_thread(question, kernel)
                except EngineError:
                    self.kernels.pass_over(kernel)
        async with await self._lease(target, wish) as lease:
            return await asyncio.to_thread(question, lease.engine)

    async def _open_runner(self, target: Target, request: Request, wish: Wish) -> Flight:
        async with contextlib.AsyncExitStack() as held:
            lease = await self._lease(target, wish)
            await held.enter_async_context(lease)
            flight = await Flight.begin(lease.engine, request)
            return flight.holding(held.pop_all())

    async def _lease(self, target: Target, wish: Wish) -> Lease:
        """Of a runner with the usual context or, where that is too short for the wish, of one with a longer."""
        spec, wanted = self._spec(target), _useful_length(wish.context_length or 0, target.context_length)
        usual = spec.options.context_length or wanted  # None is chosen in the load, and known from then on
        if self._lengths.get(spec.key, usual) >= wanted:
            lease = await self._named(target, spec, wish)
            self._lengths[spec.key] = lease.engine.info.context_length
            if self._lengths[spec.key] >= wanted:
                return lease
            lease.release()
        longer = replace(spec, options=replace(spec.options, context_length=wanted))
        return await self._named(target, longer, wish)

    async def _named(self, target: Target, spec: RunnerSpec, wish: Wish) -> Lease:
        lease = await self.supervisor.lease(spec, keep_alive_s=wish.keep_alive_s)
        lease.used_as(target.name)
        return lease

    async def _in_kernels(self, target: Target, wish: Wish) -> list[RemoteEngine]:
        assert target.file is not None
        if not self._config().share_kernels or not await self.kernels.records():
            return []
        file_hash = await asyncio.to_thread(model_hash, target.file)
        wanted = _at_most(wish.context_length or 0, target.context_length)
        return await self.kernels.with_model(file_hash, max(wanted, self._options_of(target).context_length or 0))

    def _spec(self, target: Target) -> RunnerSpec:
        assert target.path is not None
        assert target.file is not None
        self._sources[target.file] = target.path
        folder, options = self._config().runtime_dir, self._options_of(target)
        return RunnerSpec(path=target.file, name=target.base, folder=folder, options=options, stamp=target.stamp)

    def _options_of(self, target: Target) -> LoadOptions:
        """The preset's own, with which it shares no runner with its base; the server's; those of the tuning."""
        given = {name: value for name, value in asdict(self._options).items() if value != _USUAL[name]}
        given |= _own_options(target)
        usual = {} if target.tuned is None else target.tuned.options_beside(given)
        return replace(self._options, **usual, **_own_options(target))


def _own_options(target: Target) -> dict[str, Any]:
    if target.preset is None:
        return {}
    length = _at_most(target.preset.context_length or 0, target.context_length) or None
    own = {"context_length": length, "threads": target.preset.threads}
    return {name: value for name, value in own.items() if value is not None}


def _useful_length(wanted: int, trained: int) -> int:
    """The next power of two, so that a few lengths do for all who ask; no more than the model has learnt."""
    enough = 1 << max(0, wanted - 1).bit_length() if wanted else 0
    return _at_most(enough, trained)


def _at_most(wanted: int, trained: int) -> int:
    """What the model has learnt is enough for every wish; 0 is unknown."""
    return min(wanted, trained) if trained else wanted
