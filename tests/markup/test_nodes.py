from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.markup.nodes import Node, nodes
from tests.markup.attacks import ATTACKS, FRAGMENTS

TAGS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "s"}
TAGS |= {"a", "table", "thead", "tbody", "tr", "th", "td", "hr", "br", "span", "input"}
ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "th": {"align"},
    "td": {"align"},
    "pre": {"class", "data-language"},
    "input": {"checked"},
    "span": {"class", "data-display"},
}


def elements(found: list[Node]) -> Iterator[list[Any]]:
    waiting = list(found)
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            yield node
            waiting += node[2:]


def text_of(found: list[Node]) -> str:
    return "".join(node if isinstance(node, str) else text_of(node[2:]) for node in found)


def depth_of(found: list[Node]) -> int:
    return max((1 + depth_of(node[2:]) for node in found if isinstance(node, list)), default=0)


def check_harmless(found: list[Node]) -> None:
    for tag, attributes, *children in elements(found):
        assert tag in TAGS
        assert set(attributes) <= ATTRIBUTES.get(tag, set())
        assert attributes.get("align", "left") in ("left", "center", "right")
        assert isinstance(attributes.get("start", 1), int)
        assert all(isinstance(child, str | list) for child in children)
        if tag == "input":
            assert isinstance(attributes["checked"], bool)
            assert not children
        if tag == "a":
            assert attributes["href"].startswith(("http://", "https://", "mailto:"))
            assert not any(inner[0] == "a" for inner in elements(children))
        if tag == "span":
            assert attributes["class"] == "nbllm-math" or attributes["class"].isalnum()
        if attributes.get("class") == "nbllm-math":
            assert "href" not in text_of(children)
            assert "style" not in text_of(children)
    assert depth_of(found) <= 40
    json.dumps(found).encode()
    text_of(found).encode()


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in ATTACKS.items()])
def test_attack_is_harmless(text: str) -> None:
    found = nodes(text)
    check_harmless(found)
    assert found


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join))
@settings(max_examples=200, deadline=None)
def test_mix_of_attacks_is_harmless(text: str) -> None:
    check_harmless(nodes(text))


@given(st.text(st.sampled_from("`~->*_ \t\n1.[](!<)&;#|$\\:h") | st.characters(codec=None), max_size=150))
@settings(max_examples=200, deadline=None)
def test_any_text_is_harmless(text: str) -> None:
    check_harmless(nodes(text))


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20), st.sampled_from(sorted(ATTACKS)))
@settings(max_examples=50, deadline=None)
def test_words_are_kept_whatever_is_around_them(word: str, name: str) -> None:
    assert word in text_of(nodes(f"{word}\n\n{ATTACKS[name]}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("# A *b* `c`", ["h1", {}, "A ", ["em", {}, "b"], " ", ["code", {}, "c"]], id="heading"),
        pytest.param("a\nb  \n~~c~~", ["p", {}, "a\nb", ["br", {}], ["s", {}, "c"]], id="breaks"),
        pytest.param("<b>x</b>", ["p", {}, "<b>x</b>"], id="HTML"),
        pytest.param("&lt;b&gt; \\*", ["p", {}, "<b> *"], id="entities"),
        pytest.param("a&#x2028;b", ["p", {}, "a\nb"], id="line break in an entity"),
        pytest.param("3. a\n4. b", ["ol", {"start": 3}, ["li", {}, "a"], ["li", {}, "b"]], id="tight list"),
        pytest.param("- a\n\n- b", ["ul", {}, ["li", {}, ["p", {}, "a"]], ["li", {}, ["p", {}, "b"]]], id="loose list"),
        pytest.param("> a", ["blockquote", {}, ["p", {}, "a"]], id="quote"),
        pytest.param("***", ["hr", {}], id="rule"),
        pytest.param("```\n<x>\n```", ["pre", {"class": "nbllm-code"}, ["code", {}, "<x>"]], id="code"),
        pytest.param("```\n```", ["pre", {"class": "nbllm-code"}, ["code", {}]], id="no code"),
        pytest.param("    a\n\n    b", ["pre", {"class": "nbllm-code"}, ["code", {}, "a\n\nb"]], id="indented code"),
        pytest.param("[a]\n\n[a]: http://x.y", ["p", {}, "[a]"], id="no reference links"),
    ],
)
def test_block_becomes_a_node(text: str, expected: Node) -> None:
    assert nodes(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "item"),
    [
        pytest.param("- [ ] one", [["input", {"checked": False}], " one"], id="open"),
        pytest.param("1. [x] one", [["input", {"checked": True}], " one"], id="done, with a number"),
        pytest.param("* [X] **one**", [["input", {"checked": True}], " ", ["strong", {}, "one"]], id="bold"),
        pytest.param("- [x] one\n\n- b", [["p", {}, ["input", {"checked": True}], " one"]], id="loose list"),
        pytest.param(
            "- [x] [y](http://a.b)",
            [["input", {"checked": True}], " ", ["a", {"href": "http://a.b"}, "y"]],
            id="before a link",
        ),
        pytest.param("- [x](http://a.b) one", [["a", {"href": "http://a.b"}, "x"], " one"], id="link"),
        pytest.param("- [x]one", ["[x]one"], id="no space"),
        pytest.param("- \\[x] one", ["[x] one"], id="escaped"),
        pytest.param("- `[x]` one", [["code", {}, "[x]"], " one"], id="code"),
        pytest.param("- one [x] two", ["one [x] two"], id="in the middle"),
        pytest.param("- # [x] one", [["h1", {}, "[x] one"]], id="heading"),
        pytest.param("- a\n\n  [x] one", [["p", {}, "a"], ["p", {}, "[x] one"]], id="second paragraph"),
        pytest.param("- [x [ ] y](javascript:a)", ["x [ ] y"], id="link that is none"),
    ],
)
def test_item_that_begins_with_a_mark_is_a_task(text: str, item: list[Node]) -> None:
    assert nodes(text)[0][2][2:] == item


@pytest.mark.parametrize("text", ["[x] one", "> [x] one", "| a |\n|---|\n| [x] one |"])
def test_mark_outside_of_a_list_is_text(text: str) -> None:
    assert "[x] one" in text_of(nodes(text))


def test_table_has_alignments_and_broken_lines() -> None:
    assert nodes("| a | b |\n|:-:|--:|\n| 1<br>2 |") == [
        [
            "table",
            {},
            ["thead", {}, ["tr", {}, ["th", {"align": "center"}, "a"], ["th", {"align": "right"}, "b"]]],
            ["tbody", {}, ["tr", {}, ["td", {"align": "center"}, "1", ["br", {}], "2"], ["td", {"align": "right"}]]],
        ]
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[x](http://a.b/?c=1&copy=2)", ["a", {"href": "http://a.b/?c=1&copy=2"}, "x"], id="ampersand"),
        pytest.param("[x](HTTPS://a.b 't')", ["a", {"href": "https://a.b", "title": "t"}, "x"], id="title"),
        pytest.param("[](http://a.b)", ["a", {"href": "http://a.b"}, "http://a.b"], id="no words"),
        pytest.param("<http://a.b/%41>", ["a", {"href": "http://a.b/%41"}, "http://a.b/%41"], id="in angles"),
        pytest.param("<a@b.c>", ["a", {"href": "mailto:a@b.c"}, "a@b.c"], id="mail"),
        pytest.param("![a *b*](http://x.y/z.png)", ["a", {"href": "http://x.y/z.png"}, "a b"], id="image"),
        pytest.param("![](http://x.y/z.png)", ["a", {"href": "http://x.y/z.png"}, "image"], id="image without words"),
        pytest.param("[![a](http://i)](http://l)", ["a", {"href": "http://l"}, "a"], id="image in a link"),
        pytest.param("![a](data:x)", "a", id="image from elsewhere"),
        pytest.param("[x *y*](javascript:alert(1))", "x ", id="script"),
        pytest.param("[x](/api/shutdown)", "x", id="relative"),
        pytest.param("[x](//evil.example)", "x", id="without a scheme"),
        pytest.param("[x](http://good.example@evil.example)", "x", id="a user in it"),
    ],
)
def test_link_leads_only_to_allowed_addresses(text: str, expected: Node) -> None:
    assert nodes(text)[0][2] == expected


@pytest.mark.parametrize(
    ("text", "display", "source"),
    [
        pytest.param("$a_b$", "0", "$a_b$", id="inline"),
        pytest.param("\\(a*b*\\)", "0", "$a*b*$", id="parentheses"),
        pytest.param("$$x$$", "1", "$$x$$", id="display"),
        pytest.param("\\[x\\]", "1", "$$x$$", id="brackets"),
        pytest.param("$$\na\n+ b\n=\n$$", "1", "$$a + b =$$", id="lines that look like lists and headings"),
        pytest.param("\\begin{align}\na\\end{align}", "1", "\\begin{align}a\\end{align}", id="environment"),
    ],
)
def test_formula_is_a_span(text: str, display: str, source: str) -> None:
    assert nodes(text) == [["p", {}, ["span", {"class": "nbllm-math", "data-display": display}, source]]]


@pytest.mark.parametrize(
    "text", ["$5 and $6", "$\\href{javascript:x}{y}$", "\\(\\style{x}{y}\\)", "$$ a $b", "`$x$`", "\\$x$"]
)
def test_other_dollars_are_text(text: str) -> None:
    assert not [node for node in elements(nodes(text)) if node[0] == "span"]


def test_formula_after_text_ends_the_paragraph_before_a_list_can_start() -> None:
    assert [node[0] for node in nodes("so\n$$\n- a\n$$\n- b\n")] == ["p", "p", "ul"]


def test_code_is_coloured_by_its_language() -> None:
    (node,) = nodes("```{.Python} title\nif x:  # y\n```")
    assert node[1] == {"class": "nbllm-code", "data-language": "Python"}
    assert node[2][2:4] == [["span", {"class": "k"}, "if"], " "]
    assert text_of([node]) == "if x:  # y"


def test_too_deep_nesting_is_text() -> None:
    found = nodes("> " * 500 + "deep\n\n" + "*a **b " * 300 + "c** d*" * 300)
    assert depth_of(found) <= 40
    assert "deep" in text_of(found)


def test_very_long_paragraph_is_plain() -> None:
    text = "*a* " * 10_000 + "b"
    assert nodes(text) == [["p", {}, text]]


@pytest.mark.parametrize("text", ["", "\n \n\t\n", "\x00"])
def test_nothing_gives_no_nodes(text: str) -> None:
    assert nodes(text) == []
