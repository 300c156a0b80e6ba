from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Message, ToolCall
from nbllm.errors import ParameterError
from nbllm.notebook.tree import Tree, Turn
from nbllm.notebook.widget.attachments import Attachment, as_text
from nbllm.notebook.widget.commands import FORMATS as ASKED_FOR
from nbllm.notebook.widget.export import FORMATS, exported
from nbllm.session.conversation import write_messages
from tests.markup.attacks import FRAGMENTS
from tests.markup.rendering import read, with_marked, with_mistune
from tests.notebook.hostile import CORPUS
from tests.notebook.widget.conversing import attacked, tree_of

CODE = "Do:\n\n```python\nprint('<b>')  # &amp;\n\n%timeit 1\n```\nThen:\n\n```\n$ out\n```\n\n~~~py\n```\n~~~\n"
TREE = tree_of(("A *question*", "An **answer** with <b>HTML</b>."), ("Code?", CODE), system="Be kind.", model="smollm2")


def notebook(path: list[Turn], name: str = "chat-1") -> Any:
    """The exported notebook, which is a valid one."""
    content = exported("ipynb", name, path).content
    found = nbformat.reads(content, as_version=nbformat.NO_CONVERT)  # type: ignore[no-untyped-call]
    nbformat.validate(found)
    assert (found.nbformat, found.nbformat_minor) == (4, 5)
    return found


def foreign(markdown: str) -> list[str]:
    """What of its HTML Markdown cannot have made; an anchor of nbconvert has its heading's words, also "mermaid"."""
    anchors = ("h1 id=", "h2 id=", "a href='#")
    return [found for found in read(with_mistune(markdown)).foreign if not found.startswith(anchors)]


def cells(path: list[Turn]) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook(path).cells]


def test_formats_are_those_that_a_page_asks_for() -> None:
    assert tuple(FORMATS) == ASKED_FOR
    with pytest.raises(ParameterError, match=r"'pdf' is not one of markdown, jsonl, ipynb"):
        exported("pdf", "x", [])


def test_markdown_is_a_document_to_be_read() -> None:
    found = exported("markdown", "chat-1", TREE.path())
    assert (found.name, found.type) == ("chat-1.md", "text/markdown")
    assert found.content.startswith(
        "# chat-1\n\n## System\n\nBe kind.\n\n## You\n\nA *question*\n\n## smollm2\n\n"
        "An **answer** with &lt;b>HTML&lt;/b>.\n\n## You\n\nCode?\n\n## smollm2\n\nDo:\n\n```python\n"
    )
    assert found.content.endswith("~~~py\n```\n~~~\n".replace("~~~py", "````py").replace("~~~", "````"))


def test_markdown_folds_what_was_thought() -> None:
    tree = Tree("x")
    answer = Message("assistant", "Yes", reasoning="hm", tool_calls=(ToolCall("1", "f", '{"a": 1}'),))
    tree.add(Message("user", "a"), answer, parent=None, after=[Message("tool", "ok", tool_call_id="1")])
    content = exported("markdown", "x", tree.path()).content
    assert "## The model\n\n<details><summary>Thoughts</summary>\n\nhm\n\n</details>\n\nYes\n\nf(" in content
    assert "## Tool\n\nok\n" in content


def test_json_lines_are_those_of_a_saved_conversation(tmp_path: Path) -> None:
    found = exported("jsonl", "chat-1", TREE.path())
    written = write_messages(tmp_path / "x.jsonl", TREE.messages(TREE.head))
    assert found.content == written.read_text(encoding="utf-8")
    assert found.name == "chat-1.jsonl"
    assert [json.loads(line)["role"] for line in found.content.splitlines()] == ["system", *["user", "assistant"] * 2]


def test_notebook_has_the_python_of_answers_in_cells() -> None:
    assert cells(TREE.path()) == [
        ("markdown", "# chat-1"),
        ("markdown", "## System\n\nBe kind."),
        ("markdown", "## You\n\nA *question*"),
        ("markdown", "## smollm2\n\nAn **answer** with &lt;b>HTML&lt;/b>."),
        ("markdown", "## You\n\nCode?"),
        ("markdown", "## smollm2\n\nDo:"),
        ("code", "print('<b>')  # &amp;\n\n%timeit 1"),
        ("markdown", "Then:\n\n```\n$ out\n```"),
        ("code", "```"),
    ]
    assert all(cell.execution_count is None and cell.outputs == [] for cell in notebook(TREE.path()).cells[6::2])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("```python\na\n```", [("markdown", "## m"), ("code", "a")], id="code alone"),
        pytest.param("```py\na\n```\n```py\nb\n```", [("markdown", "## m"), ("code", "a"), ("code", "b")], id="two"),
        pytest.param("```python\na", [("markdown", "## m"), ("code", "a")], id="not closed"),
        pytest.param("```python\n\n```", [("markdown", "## m\n\n```python\n\n```")], id="empty"),
        pytest.param("", [], id="nothing"),
        pytest.param(
            "> ```python\n> a\n> ```", [("markdown", "## m\n\n> <pre><code>a&#10;</code></pre>")], id="quoted"
        ),
    ],
)
def test_notebook_of_one_answer(answer: str, expected: list[tuple[str, str]]) -> None:
    assert cells(tree_of(("q", answer), model="m").path())[2:] == expected


def test_code_of_questions_and_thoughts_is_no_cell_of_its_own() -> None:
    tree = Tree("x")
    question = as_text("Why?", [Attachment("a.py", "import os")])
    tree.add(Message("user", question), Message("assistant", "", reasoning="```python\nb\n```"), parent=None)
    (_, asked, thought) = cells(tree.path())
    assert asked[0] == thought[0] == "markdown"
    assert "a.py:\n\n```python\nimport os\n```" in asked[1]
    assert "```python\nb\n```\n\n</details>" in thought[1]


@pytest.mark.parametrize(("format_name", "content"), [("markdown", "# chat-1\n"), ("jsonl", "")])
def test_empty_chat_is_a_file_too(format_name: str, content: str) -> None:
    assert exported(format_name, "chat-1", []).content == content


def test_empty_chat_is_a_notebook_too() -> None:
    assert len(notebook([]).cells) == 1


@pytest.mark.parametrize(
    ("name", "file_name"),
    [
        ("Übung 1: Daten", "Übung-1-Daten.md"),
        ("../../etc/passwd", "etc-passwd.md"),
        ("a\x00b\u202egnp\n.", "ab-U-202E-gnp.md"),
        ("", "chat.md"),
        ("...", "chat.md"),
        ("CON", "chat-CON.md"),
        ("nul.txt", "chat-nul.txt.md"),
        ('<img src=x onerror="alert(1)">', "img-src-x-onerror-alert-1.md"),
        ("x" * 500, "x" * 80 + ".md"),
    ],
    ids=repr,
)
def test_file_name_is_fit_for_every_system(name: str, file_name: str) -> None:
    assert exported("markdown", name, []).name == file_name


@pytest.mark.parametrize("attack", CORPUS.values(), ids=CORPUS)
def test_attack_stays_text(attack: str) -> None:
    assert foreign(exported("markdown", attack, attacked([attack, "benign"])).content) == []
    prose = {cell.source for cell in notebook(attacked([attack]), attack).cells if cell.cell_type == "markdown"}
    assert [source for source in prose if foreign(source)] == []


def test_attacks_stay_text_in_marked() -> None:
    files = [exported("markdown", attack, attacked([attack, "benign"])).content for attack in CORPUS.values()]
    assert [html for html in with_marked(files) if read(html).foreign] == []


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=10).map("".join), min_size=1, max_size=3))
@settings(max_examples=25, deadline=None)
def test_mixes_stay_text(texts: list[str]) -> None:
    path = attacked(texts)
    assert foreign(exported("markdown", "x", path).content) == []
    assert [kind for kind, source in cells(path) if kind == "markdown" and foreign(source)] == []


@given(st.text(st.characters(codec=None)))
@settings(max_examples=50, deadline=None)
def test_any_text_gives_files_in_utf8(text: str) -> None:
    for format_name in FORMATS:
        found = exported(format_name, text, attacked([text]))
        assert found.content.encode()
        assert found.name.encode()
    assert notebook(attacked([text]))
