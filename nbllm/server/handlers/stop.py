"""`POST {base_url}nbllm/stop`: the way for a page's Stop button past a kernel that is busy.

    {"token": "..."}     204 when it was stopped, 404 when nobody listens under that token

It is for the notebook server's own pages, so Jupyter says who may ask, and the keys for `/v1` open nothing here.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from nbllm.runner.stops import request_stop

_MOST_BYTES = 1024


class _Call(msgspec.Struct):
    token: str


class StopHandler(APIHandler):
    """Passes a token on to who listens for it in this user's runtime folder."""

    _track_activity = False  # what is stopped was running, and has kept the server awake

    def initialize(self, folder: Path) -> None:
        self._folder = folder

    @web.authenticated
    @authorized("execute", resource="nbllm")
    async def post(self) -> None:
        token = _token(self.request.body)
        if not await asyncio.to_thread(request_stop, self._folder, token):
            raise web.HTTPError(404, "Nobody listens for this token: the kernel has ended, or the chat was closed")
        self.set_status(204)
        self.finish()


def _token(body: bytes) -> str:
    if len(body) > _MOST_BYTES:
        raise web.HTTPError(400, f"The body is larger than {_MOST_BYTES:,} bytes")
    try:
        return msgspec.json.decode(body, type=_Call).token
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise web.HTTPError(400, 'Send {"token": "..."}') from exc
