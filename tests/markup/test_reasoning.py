from __future__ import annotations

import pytest

from nbllm.markup.reasoning import fold_reasoning, folded
from nbllm.markup.stream import SafeStream
from tests.markup.attacks import ATTACKS
from tests.markup.rendering import read, with_marked, with_mistune


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_stays_in_the_fold(attack: str) -> None:
    _assert_folded(with_mistune(fold_reasoning(attack, done=True) + "\nanswer"))


def test_attacks_stay_in_the_fold_in_marked() -> None:
    for html in with_marked([fold_reasoning(attack, done=False) + "\nanswer" for attack in ATTACKS.values()]):
        _assert_folded(html)


def _assert_folded(html: str) -> None:
    assert read(html).foreign == []
    assert html.count("<details") == html.count("</details>") == 1
    assert "answer" in html.split("</details>")[1]


def test_markdown_in_the_fold_is_rendered() -> None:
    elements = read(with_mistune(fold_reasoning("a **b**\n\n- c\n\n```\nd", done=True))).elements
    assert elements == ["details", "summary", "p", "strong", "ul", "li", "pre", "code"]


def test_fold_is_open_while_thinking() -> None:
    assert fold_reasoning("a", done=False).startswith("<details open>")
    assert fold_reasoning("a", done=True).startswith("<details>")


def test_empty_reasoning_gives_nothing() -> None:
    assert fold_reasoning(" \n", done=True) == ""


def test_streamed_reasoning_folds_alike() -> None:
    stream = SafeStream()
    stream.push("a <b>")
    assert folded(stream.markdown(), done=False) == fold_reasoning("a <b>", done=False)
