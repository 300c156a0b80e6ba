"""`HEAD` and `POST /api/blobs/sha256:...`: files that a model is going to be made of."""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated

from nbllm.server.apierror import ApiError
from nbllm.server.failures import failure_of
from nbllm.server.handlers.ollama import OllamaHandler
from nbllm.server.uploads import MAX_BLOB_BYTES, Upload
from nbllm.store.blobs import find_blob


class OllamaBlobHandler(OllamaHandler):
    """One file, known by its digest. What comes goes to the disk as it comes."""

    scope = "manage"
    route = "api/blobs"
    kinds = None  # it is no JSON, whatever a client's library says of it
    _upload: Upload | None = None
    _failure: ApiError | None = None
    _end: asyncio.Task[None] | None = None

    @property
    def max_body_bytes(self) -> int:
        return MAX_BLOB_BYTES

    async def prepare(self, **more: Any) -> None:
        await super().prepare(**more)
        if self.request.method == "POST" and not self.is_refused:
            await self._begin(self.path_args[0])

    async def _begin(self, digest: str) -> None:
        length = self.request.headers.get("Content-Length", "0")
        try:
            upload = Upload(digest, self.service.config(), int(length) if length.isdecimal() else 0)
            if await asyncio.to_thread(find_blob, digest, self.service.config()) is None:
                self._upload = upload
                await upload.begin()
        except Exception as error:  # noqa: BLE001  # `_told` raises what is not foreseen
            self._refuse_after_the_body(_told(error))
            return
        self.request.connection.set_max_body_size(MAX_BLOB_BYTES)  # type: ignore[union-attr]  # HTTP/1

    async def data_received(self, chunk: bytes) -> None:
        """Drops what nobody wants: to raise here would end the connection without an answer."""
        if self._upload is None or self._failure is not None or self.is_refused:
            return
        try:
            await self._upload.take(chunk)
        except Exception as error:  # noqa: BLE001  # `post` raises it
            self._failure = _told(error)
            await self._upload.abort()

    @allow_unauthenticated
    async def head(self, digest: str) -> None:
        if await asyncio.to_thread(find_blob, digest, self.service.config()) is None:
            raise ApiError(404, f"blob {digest[:80]!r} not found")

    @allow_unauthenticated
    async def post(self, _: str) -> None:
        if self._failure is not None:
            raise self._failure
        if self._upload is not None:
            await self._upload.finish()
            self.set_status(201)
        self.finish()

    def on_finish(self) -> None:
        self._abort()
        super().on_finish()

    def on_connection_close(self) -> None:
        self._abort()
        super().on_connection_close()

    def _abort(self) -> None:
        if self._upload is not None:
            self._end = asyncio.ensure_future(self._upload.abort())


def _told(error: Exception) -> ApiError:
    """Raises what nobody foresaw."""
    if isinstance(error, ApiError):
        return error
    if failure_of(error) is None:
        raise error
    return ApiError.of(error)
