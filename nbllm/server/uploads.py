"""A blob on its way from a client to the models folder: never more of it in memory than a piece."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable

from nbllm.config import Config
from nbllm.core.sizes import size_text
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.server.apierror import ApiError
from nbllm.store.blobs import BlobWriter, blob_path

MAX_BLOB_BYTES = 2**39
"""Beyond the largest file that any model is published in."""
_PIECE_BYTES = 2**20
_SPARE_BYTES = 2**26
"""Left on the disk for everything else."""
_RETRY_S = 30.0
_logger = logging.getLogger("nbllm.server")


class Upload:
    """Takes a blob in. To be used from the event loop only; files are written in threads.

    Args:
        size: that the client has announced; 0 is unknown.

    Raises:
        ParameterError: what is to be the digest is none.
    """

    def __init__(self, digest: str, config: Config, size: int) -> None:
        self._folder = blob_path(digest, config).parent
        self._size = size
        self._writer = BlobWriter(digest, config)
        self._buffer = bytearray()
        self._lock = asyncio.Lock()  # a client may go away while a piece is being written
        self._is_open = False

    async def begin(self) -> None:
        """Raises ApiError when there is no room for it."""
        await self._do(self._begin)

    async def take(self, data: bytes) -> None:
        """Raises ApiError when it cannot be kept."""
        self._buffer += data
        if len(self._buffer) >= _PIECE_BYTES:
            await self._do(self._write)

    async def finish(self) -> None:
        """Put it into its place.

        Raises:
            ApiError: it cannot be kept.
            ParameterError: it has another digest.
        """
        await self._do(self._finish)

    async def abort(self) -> None:
        """Remove what has come, unless it is in its place. Twice is harmless."""
        async with self._lock:
            await asyncio.to_thread(self._close)

    async def _do(self, act: Callable[[], None]) -> None:
        async with self._lock:
            try:
                await asyncio.to_thread(act)
            except ParameterError:
                raise
            except InvalidRequestError as exc:  # names the folder, which is for the owner
                _logger.error("nbllm: a blob was not kept: %s", exc)
                raise _not_kept("its folder cannot be written to; the server's log says why") from exc

    # ---- in threads

    def _begin(self) -> None:
        self._writer.__enter__()
        self._is_open = True
        self._check_space(self._size)

    def _write(self) -> None:
        if not self._is_open:  # it was aborted
            return
        self._check_space(len(self._buffer))
        self._writer.write(bytes(self._buffer))
        self._buffer.clear()

    def _finish(self) -> None:
        self._write()
        self._writer.finish()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._writer.__exit__(None, None, None)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free - _SPARE_BYTES
        if needed > free:
            raise _not_kept(f"{size_text(needed)} are needed, and {size_text(max(0, free))} of the disk are free")


def _not_kept(why: str) -> ApiError:
    return ApiError(503, f"the blob cannot be kept: {why}", retry_after_s=_RETRY_S)
