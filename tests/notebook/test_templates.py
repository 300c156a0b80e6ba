from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import InvalidRequestError
from nbllm.notebook.templates import Template, find, listed

FULL = """
---
name: translate
description: Into another language,
  with its tone
model: smollm2
system: "You are a translator: precise."
parameters: {temperature: 0.2, max_tokens: 50, stop: [END]}
defaults: {language: English, version: 1.10, polite: no, day: 2024-01-02, none: }
---

Translate into {language} {version} {polite} {day}{none}:

{input}

"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.md"
    path.write_bytes(textwrap.dedent(text).removeprefix("\n").encode())
    return path


def template(body: str, **defaults: str) -> Template:
    return Template(name="test", path=Path("test.md"), body=body, defaults=defaults)


def problem_of(folder: Path, name: str = "broken") -> str:
    """What `find` says, which is what `listed` says of that file."""
    with pytest.raises(InvalidRequestError) as raised:
        find(name, [folder])
    says = str(raised.value)
    assert says.isprintable()
    assert [one.problem for one in listed([folder])] == [says]
    assert str(folder / f"{name}.md") in says
    return says


def test_file_is_read_with_all_its_keys(folder: Path) -> None:
    path = write(folder, "translate", FULL)
    found = find("translate", [folder])
    assert found == Template(
        name="translate",
        path=path,
        description="Into another language, with its tone",
        model="smollm2",
        system="You are a translator: precise.",
        parameters={"temperature": 0.2, "max_tokens": 50, "stop": ["END"]},
        defaults={"language": "English", "version": "1.10", "polite": "no", "day": "2024-01-02", "none": ""},
        body="Translate into {language} {version} {polite} {day}{none}:\n\n{input}",
    )
    assert found.fill({}, "chat") == "Translate into English 1.10 no 2024-01-02:\n\nchat"
    assert listed([folder]) == [found]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        pytest.param("Review {input}.\n", "Review {input}.", id="no front matter"),
        pytest.param("", "", id="empty file"),
        pytest.param("---\n---\n", "", id="empty front matter"),
        pytest.param("---\n# nothing\n---\nHi", "Hi", id="only a comment"),
        pytest.param("---\r\nmodel: smollm2\r\n---\r\nHi\r\nyou", "Hi\nyou", id="CRLF"),
        pytest.param("\ufeff---\nmodel: smollm2\n--- \n    code\n", "    code", id="byte order mark"),
        pytest.param("\n---\nA rule, no front matter", "---\nA rule, no front matter", id="rule after an empty line"),
        pytest.param("Hi\n---\nyou\n---\n", "Hi\n---\nyou\n---", id="rules in the body"),
        pytest.param("----\nHi\n---", "----\nHi\n---", id="a longer rule"),
        pytest.param("---\nmodel:\nsystem: ~\nparameters:\ndefaults:\n---\nHi", "Hi", id="keys without values"),
    ],
)
def test_body_is_what_stands_after_the_front_matter(folder: Path, text: str, body: str) -> None:
    (folder / "one.md").write_bytes(text.encode())
    found = find("one", [folder])
    assert (found.name, found.body, found.problem, found.system) == ("one", body, "", None)


def test_first_folder_wins(tmp_path: Path) -> None:
    near, far, missing = tmp_path / "near", tmp_path / "far", tmp_path / "missing"
    for folder in (near, far):
        folder.mkdir()
        write(folder, "both", folder.name)
    write(far, "other", "far")
    folders = [missing, near, far]
    assert (find("both", folders).body, find("other", folders).body) == ("near", "far")
    assert [(one.name, one.body) for one in listed(folders)] == [("both", "near"), ("other", "far")]


def test_folders_may_be_relative_or_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "one", "Hi")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert find("one", ["templates"]).path == path
    assert find("one", ["~/templates"]).path == path


def test_name_in_the_front_matter_is_found_too(folder: Path) -> None:
    write(folder, "code_review", "---\nname: Code review\n---\nHi")
    write(folder, "broken", "---\nname: Code review\nsize: 3\n---\nHi")
    assert find("Code review", [folder]).path.name == "code_review.md"
    assert find("code_review", [folder]).name == "Code review"
    assert [one.name for one in listed([folder])] == ["broken", "Code review"]


def test_file_name_goes_before_a_front_matter(folder: Path) -> None:
    write(folder, "a", "---\nname: b\n---\nfrom a")
    write(folder, "b", "from b")
    assert find("b", [folder]).body == "from b"
    assert [(one.name, one.body) for one in listed([folder])] == [("b", "from b")]


def test_suffix_may_be_written(folder: Path) -> None:
    write(folder, "one", "Hi")
    assert find("one.md", [folder]).name == "one"


def test_other_files_are_no_templates(folder: Path) -> None:
    write(folder, "one", "Hi")
    (folder / "notes.txt").write_text("no")
    (folder / ".hidden.md").write_text("no")
    (folder / "folder.md").mkdir()
    (folder / "gone.md").symlink_to(folder / "nowhere")
    (folder / "linked.md").symlink_to(folder / "one.md")
    os.mkfifo(folder / "pipe.md")
    (folder / "two\nlines.md").write_text("no")
    assert [one.name for one in listed([folder])] == ["linked", "one"]


@pytest.mark.parametrize("where", ["missing", "file.txt", "nul\0", "~nobody-of-that-name/x"], ids=ascii)
def test_folder_that_is_none_is_passed_over(tmp_path: Path, where: str) -> None:
    (tmp_path / "file.txt").write_text("")
    assert listed([os.path.join(tmp_path, where)]) == []


def test_missing_template_names_the_closest_and_the_folders(folder: Path) -> None:
    for name in ("review", "rewrite", "poem"):
        write(folder, name, "Hi")
    with pytest.raises(InvalidRequestError) as raised:
        find("reviwe", [folder, "elsewhere"])
    says = f"no template 'reviwe'; the closest names: review, rewrite (looked in {folder}, elsewhere)"
    assert str(raised.value) == says


def test_missing_template_names_all_when_none_is_close(folder: Path) -> None:
    for number in range(12):
        write(folder, f"n{number:02}", "Hi")
    with pytest.raises(InvalidRequestError, match=r"there are n00, n01, .*n09 \.\.\. \(looked in"):
        find("zzz", [folder])


def test_missing_template_says_where_to_put_one(folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"put a Markdown file NAME\.md into .*templates"):
        find("zzz", [folder])


@pytest.mark.parametrize(
    "name",
    ["../secret", "..", ".", "", " ", "a/b", "a\\b", "C:x", "/etc/passwd", ".hidden", "two\nlines", "nul\0", "\ud800"],
    ids=ascii,
)
def test_name_is_no_path(folder: Path, name: str) -> None:
    write(folder.parent, "secret", "Hi")
    write(folder, ".hidden", "Hi")
    with pytest.raises(InvalidRequestError, match="-t takes the name of a template") as raised:
        find(name, [folder])
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("front", "says"),
    [
        pytest.param("model: [smollm2", "not YAML in line 3: expected ',' or ']'", id="broken YAML"),
        pytest.param("model: a: b", "not YAML in line 2", id="two colons"),
        pytest.param("model: \0", "not YAML: unacceptable character", id="control character"),
        pytest.param("- model", "the front matter must be lines of 'name: value'", id="list"),
        pytest.param("model", "must be lines of", id="only text"),
        pytest.param("? [a]\n: b", "must be lines of", id="key is a list"),
        pytest.param("--- more", "must be lines of", id="only a document"),
        pytest.param("a: b\n--- c: d", "not YAML", id="two documents"),
        pytest.param("name: &x lol\nmodel: *x", "& and *", id="alias"),
        pytest.param("a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]", "& and *", id="alias bomb"),
        pytest.param("name: !!python/object/apply:os.system [ls]", "!tags", id="object"),
        pytest.param("model: !!bool maybe", "!tags", id="tag that fails"),
        pytest.param("stop: " + "[" * 5000, "nested too deeply", id="deep"),
        pytest.param("stop: [" + "1, " * 5000 + "]", "too many values", id="long"),
        pytest.param("system: " + "x" * 70_000, "more than 65,536 characters", id="too large"),
        pytest.param("parameters: {seed: 2024-13-45}", "YAML cannot read", id="impossible date"),
        pytest.param("parameters: {seed: " + "9" * 5000 + "}", "YAML cannot read", id="huge number"),
        pytest.param("sytem: hi", "sytem is not an option; did you mean system?", id="unknown key"),
        pytest.param('"a\\nb": hi', "'a\\nb' is not an option", id="unprintable key"),
        pytest.param("<<: {model: a}", "<< is not an option", id="merge key"),
        pytest.param("temperature: 1", "write parameters: {temperature: ...}", id="parameter outside"),
        pytest.param("model: a\nmodel: b", "has 'model' twice", id="twice"),
        pytest.param("model: [a, b]", "model must be text, not a list", id="model is a list"),
        pytest.param("system: {a: b}", "system must be text, not a mapping", id="system is a mapping"),
        pytest.param("name: a/b", "name: 'a/b' is no name", id="name is a path"),
        pytest.param('name: "a\\nb"', "is no name", id="name of two lines"),
        pytest.param("parameters: warm", "parameters must be lines of 'name: value'", id="parameters are text"),
        pytest.param("parameters: {temprature: 1}", "did you mean temperature?", id="unknown parameter"),
        pytest.param("parameters: {temperature: warm}", "temperature: must be a number", id="wrong type"),
        pytest.param("parameters: {temperature: 2024-01-02}", "temperature: must be a number", id="date"),
        pytest.param("parameters: {temperature: -1}", "temperature: -1 is out of range", id="out of range"),
        pytest.param("parameters: {1: 2}", "1: is not an option", id="parameter without a name"),
        pytest.param("parameters: {system: hi}", "system stands beside the parameters", id="system inside"),
        pytest.param("parameters: {seed: 1, seed: 2}", "parameters has 'seed' twice", id="parameter twice"),
        pytest.param("defaults: [a]", "defaults must be lines of", id="defaults are a list"),
        pytest.param("defaults: {tone: [a]}", "defaults: 'tone' must be text, not a list", id="default is a list"),
        pytest.param("defaults: {ton: a}", "named 'ton'; did you mean tone?", id="default without a place"),
    ],
)
def test_broken_front_matter_is_listed_and_refused(folder: Path, front: str, says: str) -> None:
    write(folder, "broken", f"---\n{front}\n---\nIn a {{tone}} tone: {{input}}\n")
    assert says in problem_of(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"caf\xe9", "not UTF-8 text, at byte 3; save it as UTF-8", id="Latin-1"),
        pytest.param("Hi".encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(b"x" * 1_000_001, "larger than 1,000,000 bytes", id="too large"),
        pytest.param(b"---\nname: a\n", "does not end; write a line of ---", id="front matter without an end"),
        pytest.param(b"---", "does not end", id="only a fence"),
    ],
)
def test_file_that_is_no_template_is_listed_and_refused(folder: Path, content: bytes, says: str) -> None:
    (folder / "broken.md").write_bytes(content)
    assert says in problem_of(folder)


def test_file_that_cannot_be_read_is_listed_and_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    write(folder, "broken", "Hi")
    monkeypatch.setattr(Path, "open", refuse)
    assert problem_of(folder).endswith("cannot be read: Permission denied")


def test_largest_file_is_read(folder: Path) -> None:
    (folder / "large.md").write_bytes(b"x" * 1_000_000)
    assert len(find("large", [folder]).body) == 1_000_000


@pytest.mark.parametrize(
    ("body", "params", "text", "prompt"),
    [
        pytest.param("Say {input}!", {}, "hi", "Say hi!", id="text in its place"),
        pytest.param("{input}, {input}", {}, "hi", "hi, hi", id="text twice"),
        pytest.param("Be kind.", {}, "hi", "Be kind.\n\nhi", id="text after the body"),
        pytest.param("", {}, "hi", "hi", id="no body"),
        pytest.param("Be kind.", {}, "", "Be kind.", id="no text"),
        pytest.param("In {tone}: {input}", {"tone": "prose"}, "hi", "In prose: hi", id="value"),
        pytest.param("In {größe}", {"größe": "XL"}, "", "In XL", id="letters of any script"),
        pytest.param("In {tone}", {"tone": ""}, "hi", "In \n\nhi", id="empty value"),
        pytest.param("{a} {b}", {"a": "{b}", "b": "{a}{{a}}"}, "{a} {x}", "{b} {a}{{a}}\n\n{a} {x}", id="once"),
        pytest.param("{input} {a}", {"a": "1"}, "{a} {{", "{a} {{ 1", id="text is not expanded"),
        pytest.param('{{a}} {{ {"a": 1} {0} {} {a b}', {}, "", '{a} { {"a": 1} {0} {} {a b}', id="other braces"),
        pytest.param(r"\frac{x}{y}", {}, "", r"\frac{x}{y}", id="maths"),
    ],
)
def test_places_are_filled(body: str, params: dict[str, str], text: str, prompt: str) -> None:
    assert template(body).fill(params, text) == prompt


def test_value_goes_before_a_default() -> None:
    one = template("In {tone}: {input}", tone="prose", input="nothing")
    assert one.places == ("tone", "input")
    assert one.fill({}, " \n") == "In prose: nothing"
    assert one.fill({"tone": "verse"}, "hi") == "In verse: hi"


@pytest.mark.parametrize(
    ("body", "params", "text", "says"),
    [
        pytest.param("{a} {b} {c}", {"b": ""}, "hi", "missing: -p a=VALUE -p c=VALUE", id="missing values"),
        pytest.param("{x} {{y}}", {}, "", "write {{x}})", id="how to write braces"),
        pytest.param("{tone}", {"tone": "", "ton": ""}, "hi", "named 'ton'; did you mean tone?", id="close"),
        pytest.param("{tone}", {"zz": ""}, "hi", "named 'zz'; it has tone", id="not close"),
        pytest.param("none", {"tone": ""}, "hi", "named 'tone'; it has none", id="no places"),
        pytest.param("none", {"a\nb": ""}, "hi", r"named 'a\nb'; it has none", id="unprintable"),
        pytest.param("{input}", {"input": "x"}, "hi", "{input} is the text of the cell", id="input as a value"),
        pytest.param("{input}", {}, " \n", "needs a text for {input}", id="no text"),
        pytest.param("{a.upper}", {"a": "x"}, "", "{a.upper}: a template's place is {name} and no more", id="path"),
        pytest.param("{a:>5}", {"a": "x"}, "", "{a:>5}: a template's place is {name} and no more", id="format"),
        pytest.param("{a.no}", {"a": "x"}, "", "{a.no}", id="no such attribute"),
    ],
)
def test_wrong_values_say_what_to_type(body: str, params: dict[str, str], text: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        template(body).fill(params, text)
    assert says in str(raised.value)
    assert str(raised.value).startswith("template test.md: ")
    assert str(raised.value).isprintable()


@given(st.text(), st.text())
def test_no_value_is_ever_expanded(value: str, text: str) -> None:
    assert template("<{a}|{input}>").fill({"a": value}, f"x{text}") == f"<{value}|x{text}>"


@given(st.text(alphabet=st.sampled_from("-:&*!#{}[]'\"| \n\tab0?,<~.%@")))
def test_any_front_matter_is_read_or_listed(text: str) -> None:
    from nbllm.notebook.front_matter import split

    try:
        front, _ = split(f"---\n{text}\n---\n")
        says = str(list(front.nodes)) + str(front.values)
    except InvalidRequestError as exc:
        says = str(exc)
    assert says.isprintable()
