from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbllm.core import Adapter, Message, Preset, SamplingParams
from nbllm.errors import InvalidRequestError, NbllmError
from nbllm.store.presets.modelfile import parse, written
from nbllm.store.presets.text import MAX_CHARACTERS, MAX_LINES
from tests.store.presets import made

HEX = "ab" * 32
FULL = f'''
# A plumber.
FROM smollm2
adapter {{folder}}/mario.gguf
ADAPTER "two words.gguf" 0.5
ADAPTER sha256:{HEX} -2
Parameter temperature 0.7
PARAMETER num_ctx 4096
PARAMETER num_predict -1
PARAMETER num_thread 2
PARAMETER num_gpu 99
PARAMETER stop <|im_end|>
PARAMETER stop "User: "
TEMPLATE """{{{{ if .System }}}}{{{{ .System }}}}{{{{ end }}}}
{{{{ .Prompt }}}}"""

SYSTEM """You are Mario.
  # no comment
"Really"."""
MESSAGE user Hello!
MESSAGE assistant """It's-a
me!"""
LICENSE "MIT
and so on"
REQUIRES 0.5
'''


def read(text: str, folder: Path | None = None) -> Preset:
    return parse(text, name="mario", folder=folder)


def test_parse_every_instruction(tmp_path: Path) -> None:
    preset = read(FULL.replace("{folder}", str(tmp_path)), tmp_path)

    assert preset == Preset(
        name="mario",
        base="smollm2",
        system='You are Mario.\n  # no comment\n"Really".',
        messages=(Message("user", "Hello!"), Message("assistant", "It's-a\nme!")),
        sampling=SamplingParams(temperature=0.7, max_tokens=2**31 - 1, stop=("<|im_end|>", "User: ")),
        go_template="{{ if .System }}{{ .System }}{{ end }}\n{{ .Prompt }}",
        adapters=(
            Adapter(f"{tmp_path}/mario.gguf"),
            Adapter(f"{tmp_path}/two words.gguf", 0.5),
            Adapter(f"sha256:{HEX}", -2),
        ),
        context_length=4096,
        threads=2,
        licenses=("MIT\nand so on",),
        ignored={"num_gpu": "99", "requires": "0.5"},
    )
    assert read(written(preset), tmp_path) == preset


@made.few
@given(made.presets())
def test_parse_reads_what_was_written(preset: Preset) -> None:
    assert parse(written(preset), name="made", folder=Path("/")) == preset


_PIECES = st.sampled_from([
    "FROM", "from x", "PARAMETER", "stop", "top_k", "TEMPLATE", "SYSTEM", "MESSAGE", "user", "ADAPTER", "LICENSE",
    '"', '"""', "<<E", "E", "\n", " ", "#", "1", "-1e999", "9" * 50, "nan", "{{", "\r", "\0", "\ud800", "sha256:",
])  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.text(), st.lists(_PIECES, max_size=40).map("".join), st.booleans())
def test_parse_any_text_is_a_preset_or_an_error_of_one_line(text: str, pieces: str, has_folder: bool) -> None:
    said: list[str] = []
    for each in (text, pieces, f"FROM x\n{pieces}", f"FROM {text}"):
        try:
            read(each, Path("/nowhere") if has_folder else None)
        except NbllmError as exc:
            said.append(str(exc))
    assert "\n" not in "".join(said)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("FROM x\nSISTEM a", "^line 2: 'SISTEM' is no instruction; did you mean SYSTEM?"),
        ("FROM x\n\n@@@ a", "^line 3: '@@@' is no instruction; those are FROM, ADAPTER, PARAMETER"),
        ("FROM", "^line 1: nothing follows FROM"),
        ("FROM x\nPARAMETER temperature hot", "^line 2: PARAMETER temperature: must be a number, not 'hot'"),
        ("FROM x\nPARAMETER temperature 101", "^line 2: PARAMETER temperature: .* out of range"),
        ("FROM x\nPARAMETER temprature 1", "^line 2: PARAMETER temprature: .* did you mean temperature"),
        ("FROM x\nPARAMETER temperature", "^line 2: something is missing; write for example PARAMETER"),
        ("FROM x\nPARAMETER seed 1\nPARAMETER seed 2", "^line 3: PARAMETER seed is there already, in line 2"),
        ("FROM x\nPARAMETER num_ctx 1\nPARAMETER context_length 2", "^line 3: PARAMETER .* leave one of them out"),
        ('FROM x\nPARAMETER stop ""', "^line 2: PARAMETER stop: must be a text"),
        ("FROM x\nPARAMETER requires 1\nREQUIRES 1", "^line 3: PARAMETER requires is there already"),
        ("FROM x\nFROM y", "^line 2: FROM is there already, in line 1"),
        ("FROM x\nSYSTEM a\nSYSTEM b", "^line 3: SYSTEM is there already, in line 2"),
        ('FROM x\nSYSTEM """a\nb', '^line 2: """ is opened, and no line ends'),
        ('FROM x\nSYSTEM "a\nb', '^line 2: " is opened'),
        ('FROM x\nSYSTEM "a" b\nSYSTEM "c"', '^line 2: " is opened'),
        ("FROM x\nSYSTEM <<END\na", "^line 2: no line below is END"),
        ("FROM x\nMESSAGE robot a", "^line 2: MESSAGE 'robot' is none of system, developer, user, assistant"),
        ("FROM x\nMESSAGE user", "^line 2: something is missing"),
        ("FROM x\nADAPTER /a.gguf 1000", "^line 2: ADAPTER scale: .* out of range"),
        ('FROM x\nADAPTER "/a.gguf" much', "^line 2: ADAPTER scale: must be a number"),
        ("FROM sha256:abc", "^line 1: FROM sha256:abc is no blob"),
        ("SYSTEM a", "^there is no FROM"),
        ("", "^there is no FROM"),
        ("FROM x\n" + "MESSAGE user a\n" * 1001, "^messages: there are 1,001"),
        ("#" * (MAX_CHARACTERS + 1), "^the preset has 1,000,001 characters"),
        ("\n" * MAX_LINES, "^the preset has more than 50,000 lines"),
        ("FROM \ud800", "^the preset has half a surrogate pair"),
    ],
    ids=lambda text: f"{text[:40]!a}" if not text.startswith("^") else "",
)
def test_parse_refuses(text: str, match: str) -> None:
    with pytest.raises(InvalidRequestError, match=match) as refused:
        read(text, Path("/nowhere"))

    assert "\n" not in str(refused.value)


def test_parse_refuses_what_is_no_text() -> None:
    with pytest.raises(InvalidRequestError, match="must be a text, not bytes"):
        read(b"FROM x")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/etc/passwd", "./a.gguf", "../a", "~/a", "C:\\a", "\\\\host\\a"])
def test_parse_without_a_folder_refuses_paths(path: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^line 1: FROM .* is a path"):
        read(f"FROM {path}")
    with pytest.raises(InvalidRequestError, match=r"^line 2: ADAPTER .* is a path"):
        read(f"FROM x\nADAPTER {path}")


def test_parse_text_forms() -> None:
    texts = {
        "SYSTEM  plain # text  ": "plain # text",
        'SYSTEM ""': "",
        'SYSTEM " a "': " a ",
        'SYSTEM "a "b" c"': 'a "b" c',
        'SYSTEM """"a" """': '"a" ',
        'SYSTEM """\na\n"""  ': "\na\n",
        'SYSTEM "a\n b"': "a\n b",
        'SYSTEM <<END\na\n"""\n\nEND': 'a\n"""\n',
        "SYSTEM <<SYS>> a": "<<SYS>> a",
    }
    for text, expected in texts.items():
        assert read(f"FROM x\n{text}\nPARAMETER seed 1").system == expected
        assert read(f"\ufeffFROM x\r\n{text}\r\n# end").system == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("You are Mario.", "SYSTEM You are Mario."),
        ("two\nlines", 'SYSTEM """two\nlines"""'),
        ('"quoted"', 'SYSTEM """"quoted""""'),
        ("", 'SYSTEM """"""'),
        ('"""\nEND', 'SYSTEM <<END2\n"""\nEND\nEND2'),
    ],
    ids=["plain", "lines", "quoted", "empty", "three-quotes"],
)
def test_written_is_as_plain_as_can_be(text: str, line: str) -> None:
    assert written(Preset(name="m", base="x", system=text)) == f"FROM x\n{line}\n"


def test_written_uses_ollamas_names() -> None:
    sampling = SamplingParams(max_tokens=5, top_k=3)

    text = written(Preset(name="m", base="x", sampling=sampling, context_length=64, threads=2))

    assert text.split("\n")[1:-1] == [
        "PARAMETER top_k 3",
        "PARAMETER num_predict 5",
        "PARAMETER num_ctx 64",
        "PARAMETER num_thread 2",
    ]


def test_written_refuses_what_no_file_holds() -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        written(Preset(name="m", base="x", system="\udfff"))
