"""What can go wrong between an engine and the process that asks it, besides what the engine itself says."""

from __future__ import annotations

from nbllm.errors import EngineError, ModelLoadError


class ProtocolError(EngineError):
    """The other side does not speak this version of the protocol."""


class RunnerBackoffError(EngineError):
    """A model's process failed a moment ago and is not started again yet."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[RunnerBackoffError], tuple[str, float]]:
        return type(self), (str(self), self.retry_after_s)


class BusyError(EngineError):
    """Every loaded model is in use, and there is no room for one more."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[BusyError], tuple[str, float]]:
        return type(self), (str(self), self.retry_after_s)


class LoadCrashError(ModelLoadError):
    """The model's process died while it loaded it."""
