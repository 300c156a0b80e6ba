"""The mask over a real vocabulary: what few and what many allowed tokens leave possible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nbllm.chat import constraints
from nbllm.errors import ConstraintError
from nbllm.llama.backend import LlamaBackend

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def backend(smollm2_path: Path) -> Iterator[LlamaBackend]:
    made = LlamaBackend(str(smollm2_path))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pattern", "few"), [pytest.param("(yes|no)", True, id="few"), pytest.param("[a-zA-Z ]+", False, id="many")]
)
def test_mask_leaves_exactly_what_is_allowed(backend: LlamaBackend, pattern: str, few: bool) -> None:
    matcher = backend.make_matcher(constraints.grammar(constraints.regex(pattern)), constraints.parser_limits())
    row = np.arange(backend.vocabulary_size, dtype=np.float32)
    matcher.mask(row)
    possible = np.flatnonzero(np.isfinite(row))
    assert (len(possible) <= 128) is few
    assert (row[possible] == possible).all()
    checked = [*possible[:20], *range(300, 400)]
    assert [bool(np.isfinite(row[token])) for token in checked] == [matcher.allows(int(token)) for token in checked]


def test_grammar_that_does_not_compile_is_refused(backend: LlamaBackend) -> None:
    with pytest.raises(ConstraintError, match="not supported"):
        backend.make_matcher("start: ((")
