"""From `POST /api/create` to a preset: a JSON object, one with a Modelfile in it, or a Modelfile and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nbllm.core import Adapter, Preset
from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.server.ollama.messages import chat_messages
from nbllm.store.blobs import is_digest
from nbllm.store.presets import modelfile, params
from nbllm.store.presets.templates import split
from nbllm.wire.decoding import unknown_keys
from nbllm.wire.ollama.listing import untagged
from nbllm.wire.ollama.shapes import CreateBody, model_of, parsed
from nbllm.wire.openai.messages import unknown_message_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A model that a client wants made.

    Attributes:
        preset: as it was said; whether there is such a base, nobody has looked.
        quantization: that its weights shall have; None is what they have.
        unknown: keys that mean nothing here, fit for the log.
    """

    preset: Preset
    stream: bool
    quantization: str | None = None
    unknown: tuple[str, ...] = ()


def parse_create(data: bytes, name: str) -> Creation:
    """Read a request.

    Args:
        name: of the query; a Modelfile alone has no place for one.

    Raises:
        InvalidRequestError: the body is neither, or a line of the Modelfile is wrong; as ParameterError, a field is.
    """
    if data.strip() and not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _of_text(data, name)
    body, raw = parsed(data, CreateBody)
    unknown = unknown_keys(raw, CreateBody) + unknown_message_keys(raw.get("messages") or [])
    return Creation(
        preset=_preset(body, untagged(model_of(body))),
        stream=body.stream is not False,
        quantization=body.quantize or body.quantization or None,
        unknown=unknown,
    )


def _of_text(data: bytes, name: str) -> Creation:
    if not name.strip():
        raise InvalidRequestError("model is required: say the name of the new one as in /api/create?model=NAME")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequestError("the Modelfile is not in UTF-8") from None
    return Creation(preset=modelfile.parse(text, name=untagged(name), folder=None), stream=True)


def _preset(body: CreateBody, name: str) -> Preset:
    made = modelfile.parse(body.modelfile, name=name, folder=None) if body.modelfile else Preset(name=name, base="")
    made = replace(made, base=_base(body) or made.base)
    if not made.base:
        raise InvalidRequestError("from is required: the model to make it from, or files with a GGUF that was sent")
    made = _with_parameters(made, body.parameters)
    if body.adapters:
        made = replace(made, adapters=tuple(map(Adapter, _digests("adapters", body.adapters))))
    return _with_texts(made, body)


def _base(body: CreateBody) -> str | None:
    if not body.files:
        return body.base
    if body.base:
        raise InvalidRequestError("from and files: give one of them, the new model is made from one other")
    digests = _digests("files", body.files)
    if len(digests) > 1:
        raise ParameterError("files", f"has {len(digests)} files; a model is made from one GGUF, so join its parts")
    return digests[0]


def _digests(param: str, files: Mapping[str, str]) -> list[str]:
    """The names of the files are the client's business: nothing here is called by them."""
    for digest in files.values():
        if not is_digest(digest):
            raise ParameterError(
                param, f'must be names with "sha256:" and 64 lower-case hex digits, not {digest!r:.90}'
            )
    return list(files.values())


def _with_parameters(made: Preset, given: Mapping[str, object] | None) -> Preset:
    if not given:
        return made
    read = params.read(given, "parameters.")
    return replace(
        made,
        sampling=read.sampling.or_else(made.sampling),
        context_length=made.context_length if read.context_length is None else read.context_length,
        threads=made.threads if read.threads is None else read.threads,
        ignored={**made.ignored, **read.ignored},
    )


def _with_texts(made: Preset, body: CreateBody) -> Preset:
    if body.system:
        made = replace(made, system=body.system)
    if body.template:
        jinja, go = split(body.template)
        made = replace(made, template=jinja, go_template=go)
    if body.messages:
        made = replace(made, messages=chat_messages(body.messages))
    if body.license:
        made = replace(made, licenses=(body.license,) if isinstance(body.license, str) else tuple(body.license))
    return made
