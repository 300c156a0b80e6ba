from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nbllm.markup.characters import normalized
from nbllm.markup.safe import literal_markdown, safe_markdown
from tests.markup.attacks import ATTACKS, FRAGMENTS
from tests.markup.rendering import read, with_marked, with_mistune

MIXES = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_attack_in_mistune_becomes_plain_markdown(attack: str) -> None:
    assert read(with_mistune(safe_markdown(attack))).foreign == []


def test_attacks_in_marked_become_plain_markdown() -> None:
    htmls = with_marked([safe_markdown(attack) for attack in ATTACKS.values()])
    foreign = {name: read(html).foreign for name, html in zip(ATTACKS, htmls[::2], strict=True)}
    foreign |= {f"{name}, as in Lab": read(html).foreign for name, html in zip(ATTACKS, htmls[1::2], strict=True)}
    assert {name: found for name, found in foreign.items() if found} == {}


def test_attacks_left_as_they_are_are_noticed() -> None:
    """The other tests can fail."""
    harmless = [name for name, attack in ATTACKS.items() if name != "lone_surrogates" and not _is_noticed(attack)]
    assert len(harmless) < len(ATTACKS) / 2


def _is_noticed(attack: str) -> bool:
    try:
        return bool(read(with_mistune(attack)).foreign)
    except Exception:  # noqa: BLE001  # nbconvert refuses an attachment that is not there
        return True


@given(MIXES)
@example("$$\n```\n$$\n<img>\n```")
@settings(max_examples=150, deadline=None)
def test_mix_in_mistune_becomes_plain_markdown(text: str) -> None:
    assert read(with_mistune(safe_markdown(text))).foreign == []


def test_mixes_in_marked_become_plain_markdown() -> None:
    import random

    choose = random.Random(0)
    texts = ["".join(choose.choices(FRAGMENTS, k=choose.randint(1, 25))) for _ in range(500)]
    for text, html in zip(
        [t for t in texts for _ in range(2)], with_marked(list(map(safe_markdown, texts))), strict=True
    ):
        assert read(html).foreign == [], text


@given(st.text(st.characters(codec=None)))
@settings(deadline=None)
def test_any_text_gives_text_for_utf8(text: str) -> None:
    safe_markdown(text).encode()


@pytest.mark.parametrize(
    "piece",
    ["[", "`", "<", "$", "\\", "](", '](a "', "\\(", "\\[\n", "$$\n", "`` ` ", "http://$a$", "|a\n|-|\n", "> ", "\n- "],
)
def test_adversarial_text_takes_linear_steps(piece: str) -> None:
    assert safe_markdown(piece * (40_000 // len(piece)))  # a quadratic step would run into the suite's timeout


def test_many_code_marks_of_all_lengths_end() -> None:
    assert "<code>" not in safe_markdown(" ".join("`" * length for length in range(1, 500)))


@pytest.mark.parametrize(
    ("source", "elements", "text"),
    [
        pytest.param("# A\n\n## B\n", ["h1", "h2"], "AB", id="headings"),
        pytest.param("A\n===\n", ["h1"], "A", id="setext"),
        pytest.param("- a\n- b\n  - c\n", ["ul", "li", "li", "ul", "li"], "a b c", id="list"),
        pytest.param("3. a\n4. b\n", ["ol", "li", "li"], "a b", id="numbered"),
        pytest.param("**b** *i* ~~d~~ `c`", ["p", "strong", "em", "del", "code"], "b i d c", id="emphasis"),
        pytest.param("> q\n> r", ["blockquote", "p"], "q r", id="quote"),
        pytest.param("a  \nb", ["p", "br"], "a b", id="hard_break"),
        pytest.param("a `x<y` b", ["p", "code"], "a x<y b", id="code_with_less"),
        pytest.param("`a[0]`, `&amp;`, `$HOME`", ["p", "code", "code", "code"], "a[0], &amp;, $HOME", id="code_marks"),
        pytest.param("a < b & c > d", ["p"], "a < b & c > d", id="signs"),
        pytest.param("&lt;b&gt; &mdash; &eacute;", ["p"], "<b> — é", id="entities"),
        pytest.param("&#36; &foo;", ["p"], "&#36; &foo;", id="entities_left"),
        pytest.param("```\na < b &amp; $x$\n```", ["pre", "code"], "a < b &amp; $x$", id="fence"),
        pytest.param("~~~\n```\n<b>\n~~~", ["pre", "code"], "``` <b>", id="tilde_fence"),
        pytest.param("a\n\n    x < 1\n\n    y\n\nb", ["p", "pre", "code", "p"], "a x < 1 y b", id="indented"),
        pytest.param("> ```py\n> a<b\n> ```\n> c", ["blockquote", "pre", "code", "p"], "a<b c", id="fence_in_quote"),
        pytest.param("C:\\dir \\*a\\*", ["p"], "C:\\dir *a*", id="backslashes"),
        pytest.param("[a](https://b.c/d_(e) 't')", ["p", "a"], "a", id="link"),
        pytest.param("[a][1]\n\n[1]: https://b.c/\n", ["p", "a"], "a", id="reference"),
        pytest.param("![alt](https://b.c/d.png)", ["p", "a"], "alt", id="image"),
        pytest.param("[![alt](https://b.c/d.png)](https://e.f)", ["p", "a"], "alt", id="image_in_link"),
        pytest.param("<https://b.c>", ["p", "a"], "https://b.c", id="autolink"),
        pytest.param("[a](b.md)", ["p"], "[a](b.md)", id="relative_link"),
        pytest.param("x[0]: 1", ["p"], "x[0]: 1", id="no_definition"),
    ],
)
def test_benign_markdown_keeps_its_elements_and_text(source: str, elements: list[str], text: str) -> None:
    reader = read(with_mistune(safe_markdown(source)).replace("¶", "").replace("&#182;", ""))
    headings = {"h1", "h2"} & set(elements)
    assert [tag for tag in reader.elements if not (tag == "a" and headings)] == elements
    assert " ".join("".join(reader.texts).split()) == text


def test_fence_in_list_stays_in_its_item() -> None:
    reader = read(with_mistune(safe_markdown("1. a\n   ```sh\n   b < c\n\n   d\n   ```\n2. e")))
    assert reader.elements == ["ol", "li", "pre", "code", "li"]
    assert "b < c\n\nd\n" in "".join(reader.texts)


def test_table_keeps_cells_and_code() -> None:
    source = "| a | b |\n|---|:-:|\n| `x \\| <y>` | one<br>two |\n"
    reader = read(with_mistune(safe_markdown(source)))
    assert [tag for tag in reader.elements if tag in ("th", "td", "code", "br")] == [
        "th",
        "th",
        "td",
        "code",
        "td",
        "br",
    ]
    assert "x | <y>" in "".join(reader.texts)


def test_highlighted_fence_keeps_language() -> None:
    assert safe_markdown("```python title='<x>'\na<b\n```") == "```python\na<b\n```\n"


def test_fence_is_longer_than_any_inside() -> None:
    assert safe_markdown("~~~\n````\n~~~") == "`````\n````\n`````\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(r"\(x^2\)", "$x^2$", id="inline"),
        pytest.param("\\[\nx\n+ y\n- z\n\\]", "$$x + y - z$$", id="display"),
        pytest.param("$$\na & b\n$$", "$$a & b$$", id="dollars"),
        pytest.param("$x<y$", r"$x\lt y$", id="less"),
        pytest.param(r"\begin{align}a&=b\\c&=d\end{align}", r"\begin{align}a&=b\\c&=d\end{align}", id="environment"),
        pytest.param(r"a \(see below please\)", r"a \(see below please\)", id="words"),
        pytest.param("`\\(x\\)`", "<code>&#92;&#40;x&#92;&#41;</code>", id="in_code"),
        pytest.param("costs $5", r"costs \$5", id="money"),
        pytest.param("$5 and $6", "<span>&#36;</span>5 and <span>&#36;</span>6", id="more_money"),
        pytest.param("$6, `$HOME`", r"\$6, <code>&#36;HOME</code>", id="money_and_code"),
    ],
)
def test_maths_is_written_for_jupyter(source: str, expected: str) -> None:
    assert safe_markdown(source) == expected


def test_links_lead_where_they_said() -> None:
    source = "[a](HTTPS://b.c/d?e=1&f=2#g) <mailto:h@i.j> https://k.l/m?n=1&o=2"
    links = read(with_mistune(safe_markdown(source))).links
    assert links == ["https://b.c/d?e=1&f=2#g", "mailto:h@i.j", "https://k.l/m?n=1&o=2"]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_literal_attack_reads_as_it_was_written(attack: str) -> None:
    line = " ".join(normalized(attack).split())
    reader = read(with_mistune(f"| a |\n|---|\n| {literal_markdown(line)} |"))
    assert reader.foreign == []
    assert line in "".join(reader.texts)


def test_literal_text_holds_no_maths_for_a_front_end_to_find() -> None:
    assert literal_markdown(r"$x$ \(y\)") == (
        "<span>&#36;</span>x<span>&#36;</span> <span>&#92;</span>&#40;y<span>&#92;</span>&#41;"
    )
