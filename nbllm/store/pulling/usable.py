"""Whether llama.cpp can load what comes from Ollama's registry, as far as a file's header tells.

Ollama runs some models by an engine of its own. Their files are GGUF too, but of architectures that llama.cpp does not
have, or with the tensors for pictures or sound among those for text, which llama.cpp refuses.
"""

from __future__ import annotations

from pathlib import Path

from nbllm.errors import ModelLoadError
from nbllm.store.gguf import model_info, read_metadata
from nbllm.store.pulling.architectures import architectures
from nbllm.store.pulling.errors import UnusableError

_MAGIC = b"GGUF"
_ARCHITECTURE, _KIND = "general.architecture", "general.type"
_OTHER_SENSES = ("vision", "audio")
_ADVICE = "look for another GGUF of it at huggingface.co, hf:org/repo"


def check_model(name: str, path: Path, *, is_whole: bool) -> None:
    """Raises UnusableError.

    Args:
        is_whole: a beginning that says too little is as good as any.
    """
    family = _family(name, path)
    if family and family not in architectures():
        raise UnusableError(
            f"llama.cpp cannot load {name}: the architecture {family!r:.80} is unknown to it; {_ADVICE}"
        )
    for sense in _OTHER_SENSES if family else ():
        if _value(path, f"{family}.{sense}.block_count"):
            raise UnusableError(
                f"llama.cpp cannot load {name}: its {sense} tensors are in the same file, as only Ollama's own engine "
                f"has them; {_ADVICE}"
            )
    problem = model_info(path, name).problem if is_whole else ""
    if problem:
        raise UnusableError(f"llama.cpp cannot load {name}: its file {problem}; {_ADVICE}")


def check_adapter(name: str, path: Path, *, is_whole: bool) -> None:
    """Raises UnusableError. The arguments are those of `check_model`."""
    _family(name, path)
    if is_whole and _value(path, _KIND) != "adapter":
        raise UnusableError(f"llama.cpp cannot load {name}: its adapter is no LoRA in a GGUF; {_ADVICE}")


def _family(name: str, path: Path) -> str:
    """The architecture, "" where it is not known yet."""
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UnusableError(f"llama.cpp cannot load {name}: it is not a GGUF; {_ADVICE}")
    family = _value(path, _ARCHITECTURE)
    return family if isinstance(family, str) else ""


def _value(path: Path, key: str) -> object:
    try:
        return read_metadata(path, wanted=(key,)).values.get(key)
    except ModelLoadError:  # only its beginning is there, or the whole is damaged, which its description tells
        return None
