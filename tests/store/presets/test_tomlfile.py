from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Adapter, Message, Preset, SamplingParams
from nbllm.errors import InvalidRequestError, NbllmError
from nbllm.store.presets.tomlfile import parse, written
from tests.store.presets import made

FULL = '''
from = "smollm2"   # the base
system = """
You are Mario."""
template = "{% for message in messages %}{{ message.content }}{% endfor %}"
license = "MIT"
adapters = ["mario.gguf", { path = "/luigi.gguf", scale = 0.5 }]
messages = [{ role = "user", content = "Hello!" }]

[parameters]
temperature = 0.7
stop = ["a", "b"]
num_ctx = 4096
use_mmap = true
'''


def read(text: str, folder: Path | None = None) -> Preset:
    return parse(text, name="mario", folder=folder)


def test_parse_every_key(tmp_path: Path) -> None:
    preset = read(FULL, tmp_path)

    assert preset == Preset(
        name="mario",
        base="smollm2",
        system="You are Mario.",
        messages=(Message("user", "Hello!"),),
        sampling=SamplingParams(temperature=0.7, stop=("a", "b")),
        template="{% for message in messages %}{{ message.content }}{% endfor %}",
        adapters=(Adapter(f"{tmp_path}/mario.gguf"), Adapter("/luigi.gguf", 0.5)),
        context_length=4096,
        licenses=("MIT",),
        ignored={"use_mmap": "true"},
    )
    assert read(written(preset), tmp_path) == preset


@made.few
@given(made.presets())
def test_parse_reads_what_was_written(preset: Preset) -> None:
    assert parse(written(preset), name="made", folder=Path("/")) == preset


_PIECES = st.sampled_from([
    "from", "=", '"', '"""', "'", "'''", "\\", "\n", " ", "#", "[", "]", "{", "}", ".", ",", "[parameters]\n", "top_k",
    "9" * 5000, "0x" + "f" * 5000, "nan", "1979-05-27", "messages", "adapters", "\r", "\0", "\ud800", 'from="x"\n',
])  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.text(), st.lists(_PIECES, max_size=40).map("".join))
def test_parse_any_text_is_a_preset_or_an_error_of_one_line(text: str, pieces: str) -> None:
    said: list[str] = []
    for each in (text, pieces, f'from = "x"\n{pieces}'):
        try:
            read(each)
        except NbllmError as exc:
            said.append(str(exc))
    assert "\n" not in "".join(said)


_VALUES = st.recursive(
    st.sampled_from(['"a"', "1", "-1.5", "nan", "true", "1979-05-27", "9" * 400, "0x" + "f" * 5000, '"user"', '"/a"']),
    lambda values: (
        st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["role", "content", "path", "scale", "stop", "x"]), values, max_size=3)
        .map(lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}")
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["from", "system", "template", "license", "adapters", "messages", "parameters"]), _VALUES)
def test_parse_any_value_is_a_preset_or_an_error_of_one_line(key: str, value: str) -> None:
    text = f"{key} = {value}" if key == "from" else f'from = "x"\n{key} = {value}'
    said = ""
    try:
        read(text, Path("/nowhere"))
    except NbllmError as exc:
        said = str(exc)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "^there is no from"),
        ("from = \n", r"^the preset is not TOML: .*line 1"),
        ("from = 3", "^from: must be a text, not int"),
        ("from = ''", "^from: is empty"),
        ('from = "./a.gguf"', "^from: ./a.gguf is a path"),
        ('from = "x"\nsistem = "a"', "^sistem: .* did you mean system"),
        ('from = "x"\nsystem = 1', "^system: must be a text, not int"),
        ('from = "x"\nparameters = 1', "^parameters: must be a table"),
        ('from = "x"\nparameters.top_k = "many"', "^parameters.top_k: must be a number"),
        ('from = "x"\nparameters.top_k = true', "^parameters.top_k: must be a whole number"),
        ('from = "x"\nparameters.top_k = [1]', "^parameters.top_k: must be a number, not list"),
        ('from = "x"\nparameters.tpo_k = 1', "^parameters.tpo_k: .* did you mean top_k"),
        ('from = "x"\nlicense = [1]', "^license: must be a text or a list of texts"),
        ('from = "x"\nmessages = "a"', "^messages: must be a list"),
        ('from = "x"\nmessages = ["a"]', r"^messages\[0\]: must be a table of role and content"),
        ('from = "x"\nmessages = [{ role = "user" }]', r"^messages\[0\].content: is missing"),
        ('from = "x"\nmessages = [{ role = "a", content = "b" }]', r"^messages\[0\].role: 'a' is not one of"),
        ('from = "x"\nmessages = [{ role = "user", content = "b", c = 1 }]', r"^messages\[0\].c: is not an option"),
        ('from = "x"\nadapters = [{ path = 1 }]', r"^adapters\[0\].path: must be a text"),
        ('from = "x"\nadapters = [{ path = "sha256:a" }]', r"^adapters\[0\]: sha256:a is no blob"),
        (f'from = "x"\nadapters = [{{ path = "sha256:{"a" * 64}", scale = nan }}]', r"^adapters\[0\].scale: must be a"),
        ("a = " + "[" * 10_000, "too many brackets"),
        ("a" * 200_000, "200,000 characters outside of its texts"),
        ("a." * 40, "^line 1 .* too many dots"),
        ('x = """' + '\n\\"""' * 10_000, "^the preset is not TOML"),
    ],
    ids=lambda text: f"{text[:40]!a}" if not text.startswith("^") else "",
)
def test_parse_refuses(text: str, match: str) -> None:
    with pytest.raises(InvalidRequestError, match=match) as refused:
        read(text)

    assert "\n" not in str(refused.value)


def test_written_refuses_what_no_file_holds() -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        written(Preset(name="m", base="x", system="\ud800"))


def test_parse_takes_long_texts() -> None:
    for quote in ('"""', "'''"):
        assert read(f'from = "x"\nsystem = {quote}{"a.b = c " * 50_000}{quote}').system == "a.b = c " * 50_000
