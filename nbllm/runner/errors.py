"""What can go wrong between an engine and the process that asks it, besides what the engine itself says."""

from __future__ import annotations

from nbllm.errors import EngineError, ModelLoadError


class ProtocolError(EngineError):
    """The other side does not speak this version of the protocol."""


class _LaterError(EngineError):
    """It may well work in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[_LaterError], tuple[str, float]]:
        return type(self), (str(self), self.retry_after_s)


class RunnerBackoffError(_LaterError):
    """A model's process failed a moment ago and is not started again yet."""


class BusyError(_LaterError):
    """Every loaded model is in use, and there is no room for one more."""


class LoadCrashError(ModelLoadError):
    """The model's process died while it loaded it."""
