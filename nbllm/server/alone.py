"""The server of `jupyter nbllm`: the model routes, and nothing else of a notebook server.

Its settings come from `jupyter_nbllm_config.py` and from Ollama's variables, OLLAMA_HOST and OLLAMA_BASIC_AUTH. The
notebook server's own file is not read: what that opens to others (an address, a password) is meant for notebooks.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, cast

from jupyter_core.application import JupyterApp
from jupyter_server import serverapp
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.serverapp import ServerApp
from traitlets import default

from nbllm.config import OLLAMA_PORT, ollama_host
from nbllm.errors import ParameterError
from nbllm.server.handlers.base import OpenAIHandler
from nbllm.server.handlers.metrics import MetricsHandler
from nbllm.server.handlers.models import UnknownPathHandler
from nbllm.server.handlers.ollama_models import RUNNING

if TYPE_CHECKING:
    from nbllm.server.service import Service

DEFAULT_PORT = 4891
"""GPT4All's, so that what was written for it finds this server."""
FLAGS = {"no-keys": ({"NbllmApp": {"no_keys": True}}, "Let programs of this machine manage models without a key.")}
_MAX_PORT = 65_535
_WORDS = '{"model": "default", "messages": [{"role": "user", "content": "Hello!"}]}'


class RootHandler(OpenAIHandler):
    """Says where the API is, for who opens the address in a browser; clients ask here whether somebody is at home."""

    scope = None
    route = "root"
    _track_activity = False

    @allow_unauthenticated
    def get(self) -> None:
        """Ollama's clients look for its very words before they go on, at the port that is its own."""
        is_ollamas = self.serverapp is not None and self.serverapp.port == OLLAMA_PORT
        words = RUNNING if is_ollamas else "nbllm is running; its API is at v1/models\n"
        self.finish(words, set_content_type="text/plain; charset=utf-8")

    head = get


class ModelServer(ServerApp):
    """A Jupyter server without kernels, contents, terminals, pages or a browser."""

    name = "jupyter-nbllm"  # and so its file of settings
    flags = {**serverapp.flags, **FLAGS}  # noqa: RUF012  # traitlets' own spelling
    default_services = ()  # type: ignore[assignment]  # declared by its default's length
    port_default_value = DEFAULT_PORT
    port_retries_default_value = 0  # a client knows one port, so another one is no help
    _is_settled = False

    @default("reraise_server_extension_failures")
    def _must_load(self) -> bool:
        """There is nothing to serve without the extension."""
        return True

    @default("raise_config_file_errors")
    def _must_read(self) -> bool:
        return True

    @default("allow_root")
    def _any_user(self) -> bool:
        """Jupyter warns root because its token runs code; nothing here does."""
        return True

    @default("ip")
    def _usual_ip(self) -> str:
        named = ollama_host()
        return named.ip if named is not None else self._default_ip()

    @default("port")
    def _usual_port(self) -> int:
        named = ollama_host()
        return named.port if named is not None else self._port_default()

    # ---- the start

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        JupyterApp.parse_command_line(self, argv)  # ServerApp's takes a word for a notebook to open
        if self.extra_args:
            raise ParameterError(self.extra_args[0][:40], "means nothing here; see  jupyter nbllm --help")

    def load_config_file(self, suppress_errors: bool = True) -> None:  # type: ignore[override]  # as JupyterApp's
        try:
            super().load_config_file(suppress_errors=False)
        except Exception as exc:  # a file of settings is Python, which may raise anything
            raise ParameterError(self.config_file_name, f"cannot be used: {type(exc).__name__}: {exc}") from exc

    def init_logging(self) -> None:
        super().init_logging()
        self.log.addFilter(self._is_worth_a_line)

    def init_webapp(self) -> None:
        super().init_webapp()
        self.web_app.wildcard_router.rules.clear()  # the extension's own routes come later, before this router
        self.web_app.settings["default_handler_class"] = UnknownPathHandler
        base = self.base_url.rstrip("/")
        routes = [(base + "/?", RootHandler), (base + "/metrics/?", MetricsHandler)]
        self.web_app.add_handlers(".*$", routes)  # type: ignore[no-untyped-call]

    def init_httpserver(self) -> None:
        if not self.sock and not self.port_retries:
            _check_address(self.ip, self.port)
        super().init_httpserver()

    def init_signal(self) -> None:
        super().init_signal()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_at_once)

    def start_app(self) -> None:
        JupyterApp.start(self)  # ServerApp's says how to open a notebook in a browser
        self.write_server_info_file()
        self.io_loop.add_callback(self._announce)  # comes after the callback that listens

    def _announce(self) -> None:
        self._is_settled = True
        if self._level <= logging.INFO:
            sys.stderr.write(self.running_server_info() + "\n")
            sys.stderr.flush()

    def running_server_info(self, kernel_count: bool = True) -> str:
        """What is said at the start."""
        base = f"{self.connection_url.rstrip('/')}/v1"
        service: Service = self.web_app.settings["nbllm_service"]
        key = "" if service.guard.policy.is_open else " -H 'Authorization: Bearer KEY'"
        others = f"Ollama's API at {base.removesuffix('/v1')}/api, " if self.port == OLLAMA_PORT else ""
        return (
            f"nbllm serves {others}OpenAI's API at {base} (Ctrl-C stops it). To ask:\n"
            f"  curl {base}/chat/completions{key} -H 'Content-Type: application/json' -d '{_WORDS}'"
        )

    def server_info(self) -> dict[str, Any]:
        """With a mark for `jupyter nbllm status`."""
        return {**super().server_info(), "nbllm": "alone"}

    # ---- the end

    def stop(self, from_signal: bool = False) -> None:
        self._is_settled = False
        super().stop(from_signal=from_signal)

    def _stop_at_once(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
        self.stop(from_signal=True)

    @property
    def _level(self) -> int:
        return cast("int", self.log_level)  # the logger's own lets everything through

    def _is_worth_a_line(self, record: logging.LogRecord) -> bool:
        """Leaves out what Jupyter says of its extensions while it starts and stops."""
        return self._is_settled or record.levelno != logging.INFO or self._level <= logging.DEBUG


def _check_address(ip: str, port: int) -> None:
    """Raises ParameterError when nobody can listen there."""
    if not 0 <= port <= _MAX_PORT:
        raise ParameterError("--port", f"{port} is no port; they go up to {_MAX_PORT}")
    try:
        places = socket.getaddrinfo(ip or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ParameterError("--ip", f"{ip} is no address of this machine ({exc.strerror})") from exc
    for family, *_, place in places:
        try:
            _try_to_bind(family, place)
        except OSError as exc:
            if place[0] == "::1":  # localhost is that too, and many containers have no IPv6
                continue
            if exc.errno == errno.EADDRNOTAVAIL:
                raise ParameterError("--ip", f"{ip} is no address of this machine") from exc
            other = port + 1 if port < _MAX_PORT else DEFAULT_PORT
            problem = f"cannot listen on {port} of {ip or 'all addresses'}: {exc.strerror}; try  --port {other}"
            raise ParameterError("--port", problem) from exc


def _try_to_bind(family: int, place: Any) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        if os.name == "posix":  # elsewhere it would share the port with whoever has it
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        trial.bind(place)
