"""The Jupyter server extension, enabled by `jupyter-config/jupyter_server_config.d/nbllm.json` on installation."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import TraitError

from nbllm._version import __version__
from nbllm.config import key_in_environment, ollama_password
from nbllm.errors import NbllmError, ParameterError
from nbllm.runner import spawn
from nbllm.runner.spec import LoadOptions
from nbllm.runner.supervisor import Supervisor
from nbllm.server import frozen
from nbllm.server.access import Guard, Policy, policy_for
from nbllm.server.alone import FLAGS, ModelServer
from nbllm.server.handlers.embed import EmbeddingsHandler
from nbllm.server.handlers.generate import ChatHandler, CompletionHandler
from nbllm.server.handlers.models import HealthHandler, ModelHandler, ModelsHandler, UnknownPathHandler
from nbllm.server.handlers.ollama_routes import ollama_routes
from nbllm.server.handlers.stop import StopHandler
from nbllm.server.handlers.tokens import DetokenizeHandler, InputTokensHandler, TokenizeHandler
from nbllm.server.kernels import KernelEngines
from nbllm.server.keys import KeyStore
from nbllm.server.metrics import LOADED
from nbllm.server.origins import AllowedOrigins
from nbllm.server.router import Router
from nbllm.server.service import Service
from nbllm.server.settings import Settings
from nbllm.store import chats
from nbllm.store.names import resolve

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from nbllm.config import Config
    from nbllm.engine.interface import Engine


class NbllmApp(Settings, ExtensionApp):
    """Adds the routes under `/v1` and `/nbllm/ollama` to the notebook server, below its base URL."""

    name = "nbllm"
    version = __version__
    description = "Serves this machine's language models as OpenAI's API."
    examples = "jupyter nbllm --port 4891 --model smollm2"
    aliases = {  # noqa: RUF012  # traitlets' own spelling
        **ExtensionApp.aliases,
        "ip": "ServerApp.ip",
        "port": "ServerApp.port",
        "certfile": "ServerApp.certfile",
        "keyfile": "ServerApp.keyfile",
        "model": "NbllmApp.default_model",
        "context-length": "NbllmApp.context_length",
        "max-sequences": "NbllmApp.max_sequences",
        "keep-alive": "NbllmApp.keep_alive",
    }
    flags = {**ExtensionApp.flags, **FLAGS}  # noqa: RUF012  # traitlets' own spelling
    load_other_extensions = False  # when it is run alone; in a notebook server it is one of many
    serverapp_class = ModelServer
    serverapp_config = {"open_browser": False}  # noqa: RUF012  # traitlets' own spelling
    _is_off = False

    def _link_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        try:
            super()._link_jupyter_server_extension(serverapp)
        except TraitError as error:
            self._refuse(error)
            self._is_off = True

    def initialize(self, *_: object) -> None:
        """Join the server. What the user can correct is one line, and a notebook server goes on without the routes."""
        if self._is_off:  # Jupyter goes on with an extension that it could not link
            return
        try:
            super().initialize()  # type: ignore[no-untyped-call]
        except NbllmError as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        if self._is_alone:
            raise error
        self.log.error("nbllm: %s; there is no /v1 until this is corrected and the server started again", error)

    def initialize_settings(self) -> None:
        self.catches_all = self._is_alone  # as GPT4All does, whose place it takes
        live = self.live_config()
        config = live()
        keys = KeyStore(config.keys_file)
        password = ollama_password() if self._is_alone else None
        policy = self._policy(config, keys, has_password=password is not None)
        guard = Guard(policy, keys, notebook_token=self._notebook_token, password=password)
        self.service = Service(
            live,
            guard=guard,
            router=self._router(config, live),
            limits=self.limits(config),
            answers_any_name=self.says_what_any_name_means(),
        )
        self.settings["nbllm_service"] = self.service
        if self._is_alone:
            self._check_default(config)
        elif self.freeze_widgets:
            frozen.register(self._server.contents_manager, chats.folder(config))

    def _check_default(self, config: Config) -> None:
        """Raises ParameterError when `--model` names none; a default that nobody has chosen may be missing."""
        router, meant = self.service.router, config.unaliased("default")
        try:
            if meant not in router.endpoints:
                resolve(meant, config)
            router.check_length(router.names.target("default"))
        except NbllmError as exc:
            if self.default_model is not None:
                raise ParameterError("--model", str(exc)) from exc
            self.log.warning("nbllm: there is no default model: %s", exc)

    def initialize_handlers(self) -> None:
        if not self._is_alone:  # there are no notebooks
            self.handlers.append((r"/nbllm/stop/?", StopHandler, {"folder": self.service.config().runtime_dir}))
        self.handlers.extend(
            [
                (r"/v1/models/?", ModelsHandler),
                (r"/v1/models/(.+?)/?", ModelHandler),
                (r"/v1/chat/completions/?", ChatHandler),
                (r"/v1/chat/completions/input_tokens/?", InputTokensHandler),
                (r"/v1/completions/?", CompletionHandler),
                (r"/v1/embeddings/?", EmbeddingsHandler),
                (r"/v1/tokenize/?", TokenizeHandler),
                (r"/v1/detokenize/?", DetokenizeHandler),
                (r"/v1/health/?", HealthHandler),
                (r"/v1(?:/.*)?", UnknownPathHandler),  # last: the first pattern that matches wins
                *ollama_routes(is_alone=self._is_alone),
            ]
        )

    async def stop_extension(self) -> None:
        """Nothing of ours may outlive the server."""
        if hasattr(self, "service"):  # it may have been refused
            self.service.pulls.close()
            await self.service.router.close()

    @property
    def _server(self) -> ServerApp:
        assert self.serverapp is not None  # linked before any of this is called
        return self.serverapp

    @property
    def _is_alone(self) -> bool:
        return isinstance(self.serverapp, ModelServer)

    def _notebook_token(self) -> str:
        return str(self._server.identity_provider.token)

    def _policy(self, config: Config, keys: KeyStore, *, has_password: bool) -> Policy:
        return policy_for(
            self._server.ip,
            origins=AllowedOrigins.parse(config.allow_origins),
            is_alone=self._is_alone,
            is_under_hub=bool(os.environ.get("JUPYTERHUB_API_TOKEN")),
            has_keys=bool(keys.list()),
            has_password=has_password,
            no_keys=self.no_keys,
        )

    def _router(self, config: Config, live: Any) -> Router:
        supervisor = Supervisor(
            partial(spawn.start, timeout_s=config.load_timeout),
            max_loaded=config.max_loaded_models,
            keep_alive_s=config.keep_alive,
            load_timeout_s=config.load_timeout,
            fits=spawn.fits,
        )
        LOADED.set_function(lambda: len(supervisor.loaded()))
        return Router(
            live,
            options=LoadOptions(context_length=config.context_length, max_sequences=config.max_sequences),
            supervisor=supervisor,
            kernels=KernelEngines(config.runtime_dir, on_use=self._keep_awake),
            endpoints=_endpoints(config) if config.endpoints else {},
        )

    def _keep_awake(self, pid: int) -> None:
        """A kernel whose engine is used is not idle, whatever its cells do."""
        from jupyter_server._tz import utcnow

        manager = self._server.kernel_manager
        for kernel_id in manager.list_kernel_ids():
            kernel: Any = manager.get_kernel(kernel_id)
            if getattr(kernel.provisioner, "pid", None) == pid:
                kernel.last_activity = utcnow()


def _endpoints(config: Config) -> dict[str, Engine]:
    """Engines of other servers; nothing is sent there before somebody asks for their models."""
    from nbllm.runner.endpoint import EndpointEngine  # and with it an HTTP client, which few servers need

    return {
        name: EndpointEngine(
            endpoint.base_url,
            model=endpoint.model,
            api_key=key_in_environment(endpoint.api_key_env) if endpoint.api_key_env else None,
            key_name=endpoint.api_key_env or "api_key",
        )
        for name, endpoint in config.endpoints.items()
    }
