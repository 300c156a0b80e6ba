"""A failure on its way to a client."""

from __future__ import annotations

from tornado import web

from nbllm.errors import ParameterError
from nbllm.server.failures import failure_of
from nbllm.wire.openai.errors import error_body

_PARAMS = {"context_length_exceeded": "messages", "model_not_found": "model", "invalid_constraint": "response_format"}


class ApiError(web.HTTPError):
    """A failure that a client can act on; `param` and `code` are what OpenAI's clients branch on."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, message.replace("%", "%%"))  # tornado formats what it logs
        self.body = error_body(status, message, param=param, code=code)
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, error: BaseException) -> ApiError:
        """What a client is told of an error of ours, and nothing of one that nobody foresaw."""
        failure = failure_of(error)
        if failure is None:
            return cls(500, "Internal error; the notebook server's log has the details")
        param = error.param if isinstance(error, ParameterError) else _PARAMS.get(failure.code or "")
        retry_after_s = getattr(error, "retry_after_s", failure.retry_after_s)
        return cls(failure.status, str(error), param=param, code=failure.code, retry_after_s=retry_after_s)
