"""The texts of a vocabulary's tokens, control tokens included where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbllm.engine.backend import Backend


class ChangedPieces(Mapping[int, bytes]):
    """The pieces of a vocabulary, a few of them changed."""

    def __init__(self, pieces: Mapping[int, bytes], changed: Mapping[int, bytes]) -> None:
        self._pieces, self._changed = pieces, changed

    def __getitem__(self, token: int) -> bytes:
        return self._changed[token] if token in self._changed else self._pieces[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def control_tokens(backend: Backend, texts: tuple[str, ...]) -> dict[str, int]:
    """The texts that are one control token of this vocabulary, and which."""
    found = {text: backend.tokenize(text, add_special=False, parse_special=True) for text in texts}
    return {text: ids[0] for text, ids in found.items() if len(ids) == 1}


def written_pieces(backend: Backend) -> ChangedPieces:
    """The pieces, with each control token as the text that stands for it in a prompt."""
    tokens = control_tokens(backend, backend.control_texts())
    return ChangedPieces(backend.pieces, {token: text.encode() for text, token in tokens.items()})
