"""The Jupyter server extension, enabled by `jupyter-config/jupyter_server_config.d/nbllm.json` on installation."""

from __future__ import annotations

from jupyter_server.extension.application import ExtensionApp

from nbllm.server.handlers import ModelHandler, ModelsHandler, UnknownPathHandler


class NbllmApp(ExtensionApp):
    """Adds the routes under `/v1` to the notebook server, below its base URL."""

    name = "nbllm"
    load_other_extensions = True

    def initialize_handlers(self) -> None:
        self.handlers.extend(
            [
                (r"/v1/models/?", ModelsHandler),
                (r"/v1/models/(.+)", ModelHandler),
                (r"/v1(?:/.*)?", UnknownPathHandler),  # last: the first pattern that matches wins
            ]
        )
