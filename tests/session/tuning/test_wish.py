from __future__ import annotations

import pytest

from nbllm.errors import ParameterError
from nbllm.session.tuning.wish import MAX_KL, Wish, wished


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("smollm2", Wish("smollm2", MAX_KL)),
        ("smollm2 --max-kl 0.3", Wish("smollm2", 0.3)),
        ("--max-kl=0 smollm2 --dry-run", Wish("smollm2", 0.0, keeps=False)),
        ("smollm2 --forget", Wish("smollm2", forgets=True)),
        ("a=b", Wish("a=b")),
    ],
)
def test_words_say_what_to_do(line: str, expected: Wish) -> None:
    assert wished(line.split()) == expected


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("", "write tune NAME"),
        ("a b", "write tune NAME"),
        ("a --forget --dry-run", "write tune NAME"),
        ("a --forgot", "'--forgot' is not an option; did you mean --forget?"),
        ("a --max-kl", "--max-kl: must be a number"),
        ("a --max-kl much", "--max-kl: must be a number"),
        ("a --max-kl=-1", "--max-kl: must be a number"),
        ("a --max-kl=nan", "--max-kl: must be a number"),
        ("a --max-kl=inf", "--max-kl: must be a number"),
        ("a --max-kl=", "--max-kl: must be a number"),
        ("a --max-kl --dry-run", "--max-kl: must be a number"),
        ("a --dry-run=no", "--dry-run takes no value"),
        ("a --forget=no", "--forget takes no value"),
        ("a --forget --max-kl 1", "write tune NAME"),
    ],
)
def test_words_that_say_nothing_are_refused(line: str, problem: str) -> None:
    with pytest.raises(ParameterError, match=problem) as refusal:
        wished(line.split())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("word", ["--dry\nrun", "--max-kl=a\nb", "-" + "x" * 10_000], ids=["flag", "value", "long"])
def test_odd_word_is_refused_in_one_short_line(word: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        wished(["a", word])
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
