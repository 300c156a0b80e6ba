"""The settings as traits, so that `jupyter_server_config.py` and the command line can set them too.

A trait that is not set leaves the setting to the file and the environment (nbllm.config), which the kernels read too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from time import monotonic
from typing import Any

from traitlets import Bool, Dict, Float, HasTraits, Int, List, Unicode, Union

from nbllm.config import Config, load_config
from nbllm.errors import ParameterError
from nbllm.server.service import Limits

_FRESH_S = 1.0
_USUAL = Limits()
_TRAITS = {"aliases": "model_aliases"}  # an application's `aliases` are short forms of its options


def _optional(trait: Any, help: str) -> Any:
    return trait(default_value=None, allow_none=True, help=f"{help} [default: as in nbllm's config.toml]").tag(
        config=True
    )


class Settings(HasTraits):
    """A mixin of the extension's application.

    Attributes:
        catches_all: names that mean no model mean the default one, unless the settings say what `*` means.
    """

    catches_all = False

    default_model = _optional(Unicode, "What answers to the name `default`.")
    model_aliases = _optional(Dict, "Names for models; the name `*` stands for every name that means no model.")
    endpoints = _optional(Dict, "Other servers' models: name to {base_url, model, api_key_env}.")
    models_dir = _optional(Unicode, "The folder whose GGUF files have names.")
    foreign_stores = _optional(List, "Programs whose models have names too: ollama, huggingface, lmstudio, gpt4all.")
    registry = _optional(Unicode, "The address of Ollama's registry, for pulls; none never asks it.")
    runtime_dir = _optional(Unicode, "Where running engines leave their records and sockets.")
    context_length = _optional(Int, "Tokens that one conversation may have.")
    max_sequences = _optional(Int, "Requests that run side by side in one model.")
    max_loaded_models = _optional(Int, "Models that are loaded at a time; 0 is as many as fit.")
    max_queue = _optional(Int, "Requests in flight at a time; more get 429.")
    load_timeout = _optional(Float, "Seconds that a request waits for its model to be loaded.")
    keys_file = _optional(Unicode, "Where the hashes of the API keys are.")
    chats_dir = _optional(Unicode, "Where the kernels keep what was said in chat widgets; set it for them too.")
    allow_origins = _optional(List, 'The web pages that may use the API, such as "http://localhost:*".')
    share_kernels = _optional(Bool, "Let a model that a kernel has loaded answer from there.")
    keep_alive = Union(
        [Float(), Unicode()], default_value=None, allow_none=True, help='How long an idle model stays: 300, "5m", "-1".'
    ).tag(config=True)

    no_keys = Bool(False, help="Run alone: let programs of this machine pull, create and delete without a key.").tag(
        config=True
    )
    freeze_widgets = Bool(True, help="Save notebooks with transcripts in place of chat widgets.").tag(config=True)
    max_body_bytes = Int(_USUAL.max_body_bytes, help="Most bytes of a request's body.").tag(config=True)
    allow_token_ids = Bool(False, help="Take token ids for embeddings; they must be this model's own.").tag(config=True)
    hold_s = Float(_USUAL.hold_s, help="Seconds that a stream's headers wait for its first token.").tag(config=True)
    ping_s = Float(_USUAL.ping_s, help="Seconds between two comments on a silent stream.").tag(config=True)
    stall_s = Float(_USUAL.stall_s, help="Seconds that a client may leave its stream unread.").tag(config=True)

    def limits(self, config: Config) -> Limits:
        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_queue=config.max_queue,
            hold_s=self.hold_s,
            ping_s=self.ping_s,
            stall_s=self.stall_s,
            allow_token_ids=self.allow_token_ids,
        )

    def with_traits(self, config: Config) -> Config:
        """The settings with what was set here. Raises ParameterError, naming the trait."""
        traits = {spec.name: _TRAITS.get(spec.name, spec.name) for spec in fields(Config)}
        known = {name: getattr(self, trait) for name, trait in traits.items() if self.has_trait(trait)}
        given = {name: value for name, value in known.items() if value is not None}
        if "models_dir" in given:
            given["models_dir"] = Path(given["models_dir"])
        if self.catches_all:
            given["aliases"] = {"*": "default", **given.get("aliases", config.aliases)}
        try:
            return replace(config, **given)
        except ParameterError as exc:
            name, dot, rest = exc.param.partition(".")
            raise ParameterError(f"NbllmApp.{_TRAITS.get(name, name)}{dot}{rest}", exc.problem) from exc

    def says_what_any_name_means(self) -> bool:
        """Whether the owner has given "*" a meaning; one that `catches_all` gives it does not count."""
        return "*" in (load_config().aliases if self.model_aliases is None else self.model_aliases)

    def live_config(self) -> Callable[[], Config]:
        """The settings as they are now; a file that was broken meanwhile changes nothing until it is right again."""
        known, read_at = self.with_traits(load_config()), monotonic()

        def current() -> Config:
            nonlocal known, read_at
            if monotonic() - read_at > _FRESH_S:
                read_at = monotonic()
                try:
                    known = self.with_traits(load_config())
                except ParameterError as exc:
                    self.log.error("nbllm: %s", exc)  # type: ignore[attr-defined]  # an application's
            return known

        return current
