"""A failure on its way to a client."""

from __future__ import annotations

from tornado import web

from nbllm.server.failures import failure_of
from nbllm.wire.openai.blame import blamed
from nbllm.wire.openai.errors import error_body


class ApiError(web.HTTPError):
    """A failure that a client can act on; `param` and `code` are what OpenAI's clients branch on.

    Attributes:
        body: in OpenAI's shape, and `message` for other shapes.
    """

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
        self.message = message
        self.body = error_body(status, message, param=param, code=code)
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, error: BaseException, call: object = None) -> ApiError:
        """What a client is told of an error of ours, and nothing of one that nobody foresaw.

        Args:
            call: the request that it is about, as it was parsed.
        """
        failure = failure_of(error)
        if failure is None:
            return cls(500, "Internal error; the notebook server's log has the details")
        message, param = blamed(error, call)
        if failure.code == "model_not_found":
            param = "model"
        retry_after_s = getattr(error, "retry_after_s", failure.retry_after_s)
        return cls(failure.status, message, param=param, code=failure.code, retry_after_s=retry_after_s)
