"""The toy's tokens, and what it says after them: noise that is a function of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nbllm.core import (
    ModelInfo,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


VOCABULARY_SIZE = 262
"""A token for each byte, and six special ones: llguidance's byte vocabulary, so that constraints work on the toy."""
EMBEDDING_LENGTH = 16
BOS, IM_START, IM_END, EOS = 256, 257, 258, 261
SPECIAL_TEXTS: Mapping[int, str] = {BOS: "<s>", IM_START: "<|im_start|>", IM_END: "<|im_end|>", EOS: "</s>"}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_NAMES = {"bos": BOS, "eos": EOS, "eot": IM_END}
_MASK = 2**64 - 1


TOY_MODEL = ModelInfo(
    name="toy",
    path="toy.gguf",
    size_bytes=0,
    architecture="toy",
    context_length=2**20,
    vocabulary_size=VOCABULARY_SIZE,
    embedding_length=EMBEDDING_LENGTH,
    has_chat_template=True,
)


def split_special(text: str) -> Iterator[tuple[str, int | None]]:
    import re

    by_text = {special: token for token, special in SPECIAL_TEXTS.items()}
    for piece in re.split("(" + "|".join(map(re.escape, by_text)) + ")", text):
        yield piece, by_text.get(piece)


def mixed(state: int, token: int, position: int) -> int:
    """A hash of a prefix, from that of the prefix without its last token."""
    mixed = (state ^ (token * 0x9E3779B97F4A7C15) ^ (position * 0xC2B2AE3D27D4EB4F)) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


def noise(state: int, count: int) -> NDArray[np.float32]:
    import numpy as np

    return np.random.default_rng(state).standard_normal(count, np.float32)


def toy_logits(state: int, ends: float) -> NDArray[np.float32]:
    """Noise, in which letters are likelier than other bytes and parts of characters are rare."""
    logits = 2 * noise(state, VOCABULARY_SIZE)
    logits[:32] -= 6
    logits[97:123] += 2
    logits[127:256] -= 2
    logits[256:] -= 20
    logits[[IM_END, EOS]] += 19 + ends
    return logits
