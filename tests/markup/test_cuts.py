from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.markup.cuts import without_middle


@given(st.text(max_size=300), st.integers(0, 200), st.floats(0, 1))
def test_beginning_and_end_stay(text: str, max_chars: int, head: float) -> None:
    cut = without_middle(text, max_chars, head=head)
    if len(text) <= max_chars:
        assert cut == text
        return
    first, _, rest = cut.partition("[… ")
    count, _, last = rest.partition(" characters left out …]")
    assert text.startswith(first.removesuffix("\n"))
    assert text.endswith(last.removeprefix("\n"))
    assert len(first) + len(last) <= max_chars + 2
    assert int(count.replace(",", "")) >= len(text) - max_chars


def test_lines_stay_whole() -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    assert all(line.startswith(("line ", "[…")) for line in without_middle(text, 100).split("\n"))


@pytest.mark.parametrize("head", [0.0, 1.0])
def test_one_side_alone(head: float) -> None:
    cut = without_middle("a" * 50 + "b" * 50, 10, head=head)
    assert cut == (
        "[… 90 characters left out …]\nbbbbbbbbbb" if not head else "aaaaaaaaaa\n[… 90 characters left out …]"
    )
