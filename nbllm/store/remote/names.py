"""What a person writes for a model of the hub.

    hf:org/repo                  the quantization that suits this machine's memory
    hf:org/repo:Q4_K_M           that one
    hf:org/repo/file.gguf        that file, also in a folder of the repository
    https://huggingface.co/...   the address of a repository or of a file's page
    smollm2:135m                 a name from the shipped table

Each part of a name becomes a folder or a file's name here, so each is checked by a strict pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from nbllm.errors import ParameterError
from nbllm.store.header import shown

MAX_NAME_LENGTH = 500
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
"""An owner or a repository, as the hub has them; none ends in a dot, which Windows would drop."""
_FILE_PART = re.compile(r"[A-Za-z0-9_(\[](?:[A-Za-z0-9 ._+,=@()\[\]-]{0,198}[A-Za-z0-9_)\]])?")
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_MAX_FOLDERS = 2
"""Above a file in its repository: the models folder is only looked through so deep."""
_FORMS = 'write "hf:org/repo", "hf:org/repo:Q4_K_M" or "hf:org/repo/file.gguf"'


@dataclass(frozen=True, slots=True, kw_only=True)
class HubName:
    """A model of the hub, as far as a name says which. Every part is safe as a folder or a file.

    Attributes:
        sha256: of the file, where whoever gave it the name has seen it; else "".
    """

    owner: str
    repo: str
    file: str = ""
    quantization: str = ""
    revision: str = "main"
    sha256: str = ""

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.repo}"


def hub_name(text: str) -> HubName | None:
    """Read a name that says that it is the hub's; None for one that does not, such as a short name.

    Raises:
        ParameterError: it says so and is none, or it is not a name at all.
    """
    name = checked_text(text)
    if "://" in name and not name.startswith("hf://"):
        return _from_address(name)
    for prefix in ("hf://", "hf:", *(f"{host}/" for host in _HOSTS)):
        if name.casefold().startswith(prefix):
            return _from_rest(name[len(prefix) :], name)
    return None


def checked_text(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ParameterError("model", f"must be a model's name, not {text!r:.80}; {_FORMS}")
    name = text.strip()
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise ParameterError("model", f"{shown(name[:80])} is not a name; {_FORMS}")
    return name


def is_safe_file(path: str) -> bool:
    """Whether a file of a repository may be written here by its own name, which the repository's owner chose."""
    parts = path.split("/")
    return len(parts) <= _MAX_FOLDERS + 1 and all(_is_part(part, _FILE_PART) for part in parts)


def _from_address(address: str) -> HubName:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        raise ParameterError("model", f"{shown(address)} is not an address; {_FORMS}") from None
    if parts.scheme not in ("http", "https") or host not in _HOSTS:
        raise ParameterError("model", f"{shown(address)} is not an address of huggingface.co; {_FORMS}")
    owner, repo, *rest = [*unquote(parts.path).strip("/").split("/"), ""][:400]
    words = [word for word in rest if word]
    if not words or words == ["tree"]:
        return _from_parts(owner, repo, address)
    if words[0] in ("blob", "resolve", "raw") and len(words) > 2:
        return _from_parts(owner, repo, address, file="/".join(words[2:]), revision=words[1])
    if words[0] == "tree" and len(words) == 2:
        return _from_parts(owner, repo, address, revision=words[1])
    raise ParameterError("model", f"{shown(address)} is not the page of a repository or of a file; {_FORMS}")


def _from_rest(rest: str, name: str) -> HubName:
    """What stands after "hf:"."""
    path, colon, quantization = rest.partition(":")
    owner, slash, more = path.partition("/")
    repo, _, file = more.partition("/")
    if not slash or (colon and (file or not quantization)):
        raise ParameterError("model", f"{shown(name)} is not a model of the hub; {_FORMS}")
    return _from_parts(
        owner, repo, name, file=file, quantization="" if quantization.casefold() == "latest" else quantization
    )


def _from_parts(
    owner: str, repo: str, name: str, *, file: str = "", quantization: str = "", revision: str = "main"
) -> HubName:
    if not _is_part(owner, _PART) or not _is_part(repo, _PART):
        raise ParameterError("model", f"{shown(name)} does not name a repository of the hub; {_FORMS}")
    if file and (not is_safe_file(file) or not file.casefold().endswith(".gguf")):
        raise ParameterError("model", f"{shown(file)} cannot be the name of a GGUF file; {_FORMS}")
    if quantization and not _QUANTIZATION.fullmatch(quantization):
        raise ParameterError("model", f"{shown(quantization)} is not a quantization, such as Q4_K_M; {_FORMS}")
    if not _is_part(revision, _REVISION):
        raise ParameterError("model", f"{shown(revision)} is not a revision that can be pulled; {_FORMS}")
    return HubName(owner=owner, repo=repo, file=file, quantization=quantization, revision=revision)


def _is_part(part: str, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(part)) and ".." not in part and not _WINDOWS_DEVICE.fullmatch(part)
