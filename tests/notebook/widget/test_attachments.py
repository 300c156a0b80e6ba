from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError, ParameterError
from nbllm.markup.fences import fences
from nbllm.notebook.widget.attachments import MAX_BYTES, MAX_FILES, Attachment, as_text, checked, clean_name, split

CSV = Attachment("data.csv", "a,b\n1,2\n")
MADE = as_text("Hello", [CSV])
NOTHING = "\n\nAttached files (0):"


def entry(name: str = "a.txt", text: str = "x", kind: str = "text/plain") -> dict[str, str]:
    return {"name": name, "type": kind, "text": text}


# ---- what a page sends


def test_files_of_a_page_become_attachments() -> None:
    assert checked([entry("data.csv", "a,b\r\n1,2\r\n", "text/csv")]) == (CSV,)
    assert checked(None) == checked([]) == ()


@pytest.mark.parametrize(
    ("kind", "text", "advice"),
    [
        pytest.param("image/png", "\ufffdPNG\r\n", "describe the picture", id="image"),
        pytest.param("IMAGE/JPEG", "x", "describe the picture", id="image in capitals"),
        pytest.param("audio/wav", "x", "write out its words", id="sound"),
        pytest.param("", "%PDF-1.7 x", "save it as text", id="pdf"),
        pytest.param("", "PK\x03\x04", "save it as text", id="zip"),
        pytest.param("text/plain", "a\x00b", "save it as text", id="nul"),
        pytest.param("text/plain", "ab\ufffd" * 100, "save it as text", id="not utf-8"),
        pytest.param("text/plain", " \n", "leave it out", id="empty"),
        pytest.param("text/plain", "é" * (MAX_BYTES // 2 + 1), "the part of it that matters", id="large"),
    ],
)
def test_file_that_cannot_be_read_is_refused(kind: str, text: str, advice: str) -> None:
    with pytest.raises(InvalidRequestError, match=advice) as caught:
        checked([entry("dir/x.bin", text, kind)])
    assert str(caught.value).startswith("x.bin ")
    assert "\n" not in str(caught.value)


def test_text_with_few_odd_characters_is_text() -> None:
    (found,) = checked([entry(text="\x1b[31mred\x1b[0m caf\ufffd \ud800", kind="image/svg+xml")])
    assert found.text == "\x1b[31mred\x1b[0m caf\ufffd \ufffd"


def test_file_of_the_greatest_size_is_taken() -> None:
    assert len(checked([entry(text="x" * MAX_BYTES)] * MAX_FILES)) == MAX_FILES


def test_too_many_files_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=f"9 files are too many.* at most {MAX_FILES}"):
        checked([entry()] * 9)


@pytest.mark.parametrize(
    "entries",
    [
        *("files", b"files", 3, {}, ["x"], [None], [{"name": "x"}], [{"name": "x", "text": 3}]),
        *([{"name": ["x"], "text": ""}], [{"name": "x", "text": "y", "type": None}]),
    ],
    ids=repr,
)
def test_what_is_no_list_of_files_is_refused(entries: object) -> None:
    with pytest.raises(ParameterError, match="attachments"):
        checked(entries)


# ---- names


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\me\a b.txt", "a b.txt"),
        ("folder/", "folder"),
        ("a\nb\tc\x1b.txt", "ab c.txt"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("```html", "'''html"),
        ("", "file"),
        ("..", "file"),
        ("\u200b\u2067", "file"),
        (".gitignore", ".gitignore"),
        ("Übersicht 2026 ☃.md", "Übersicht 2026 ☃.md"),
        ("x" * 200 + ".csv", "x" * 95 + "….csv"),
        ("x." + "y" * 200, "x." + "y" * 97 + "…"),
    ],
    ids=repr,
)
def test_name_is_cleaned(name: str, clean: str) -> None:
    assert clean_name(name) == clean


@given(st.text())
def test_clean_name_is_one_line_and_stays_clean(name: str) -> None:
    clean = clean_name(name)
    assert clean_name(clean) == clean
    assert 1 <= len(clean) <= 100
    assert not set(clean) & set("/\\`\n\r\t")
    assert not {unicodedata.category(char) for char in clean} & {"Cc", "Cf", "Cs", "Co"}


# ---- the text


def test_question_and_file_read_as_markdown() -> None:
    assert MADE == "Hello\n\nAttached files (1):\n\ndata.csv:\n```csv\na,b\n1,2\n```"
    assert split(MADE) == ("Hello", ("data.csv",))


@pytest.mark.parametrize("content", ["", "\n", "```", "a\n````\nb", "~~~\n```python", "x `` y", MADE, f"{MADE}\n"])
def test_nothing_in_a_file_ends_its_fence(content: str) -> None:
    made = as_text("Look:", [Attachment("a.py", content), CSV])
    assert [found.language for found in fences(made)] == ["python", "csv"]
    assert fences(made)[0].code == content.removesuffix("\n")
    assert split(made) == ("Look:", ("a.py", "data.csv"))


def test_files_without_a_question_are_split() -> None:
    assert split(as_text("", [CSV, CSV])) == ("", ("data.csv", "data.csv"))


PIECES = st.sampled_from(
    [
        *("Hello", "\n", "\n\n", "```", "````", "```csv\n", "```text\n", "\n```", "`", "data.csv:", "a.txt:\n", " "),
        *("Attached files (0):", "Attached files (1):\n\n", "Attached files (2):\n\n", "\n\nAttached files (1):\n\n"),
        *(MADE, MADE + NOTHING, MADE.removeprefix("Hello\n\n"), NOTHING, "\r", "\u2028", "\ud800"),
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join))
NAMES = st.sampled_from(["a.txt", "data.csv", "b", "c.PY", "Attached files (1)", "```", "", "x:"]) | st.text()
FILES = st.lists(st.builds(Attachment, NAMES, TEXTS), max_size=4)


@example("", [])
@example(MADE, [])
@example(MADE + NOTHING, [])
@example(MADE + NOTHING, [CSV])
@example("\n\n" + MADE.removeprefix("Hello"), [])
@given(TEXTS, FILES)
def test_split_undoes_as_text(text: str, files: list[Attachment]) -> None:
    assert split(as_text(text, files)) == (text, tuple(clean_name(file.name) for file in files))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Hello" + NOTHING, id="nothing after a text that needs no mark"),
        pytest.param("Hello\n\nAttached files (2):\n\ndata.csv:\n```csv\na\n```", id="another count"),
        pytest.param("Hello\n\nAttached files (01):\n\ndata.csv:\n```csv\na\n```", id="another spelling"),
        pytest.param("Hello\n\nAttached files (1):\n\ndata.csv:\n````csv\na\n````", id="a fence that is too long"),
        pytest.param("Hello\n\nAttached files (1):\n\ndata.csv:\n```\na\n```", id="no language"),
        pytest.param("Hello\n\nAttached files (1):\n\ndir/data.csv:\n```csv\na\n```", id="a folder in the name"),
        pytest.param("Hello\nAttached files (1):\n\ndata.csv:\n```csv\na\n```", id="no empty line"),
        pytest.param("\n\nAttached files (1):\n\ndata.csv:\n```csv\na\n```", id="empty lines before it"),
        pytest.param("data.csv:\n```csv\na\n```", id="no heading"),
        pytest.param("```csv\na\n```", id="a block"),
        pytest.param("```", id="a fence"),
        pytest.param(MADE + "\n", id="something after it"),
    ],
)
def test_similar_text_that_a_person_typed_stays(text: str) -> None:
    assert split(text) == (text, ())
    assert as_text(text) == text


@given(TEXTS)
def test_any_text_can_be_split(text: str) -> None:
    found = split(text)
    assert text.startswith(found.text)


def test_many_marks_take_linear_time() -> None:
    text = MADE + NOTHING * 20_000
    assert split(as_text(text)) == (text, ())
