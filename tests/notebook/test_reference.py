"""README.md's tables of magics, flags, commands and settings are what the code says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nbllm.notebook.magics import ChatMagics
from tests.notebook.reference import README, TABLES, updated

COMMAND = "python -m tests.notebook.reference"


def test_tables_in_readme_are_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert updated(text) == text, f"README.md is behind the code: {COMMAND} writes its tables again"


def test_readme_has_every_table_once() -> None:
    named = re.findall(r"^<!-- generated: (\w+) -->$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(TABLES)


def test_updated_replaces_only_what_is_between_markers() -> None:
    text = "before\n<!-- generated: settings -->\noutdated\n<!-- end -->\nafter\n"
    new = updated(text)
    assert "outdated" not in new
    assert "`NbLLM.cache`" in new
    assert new.startswith("before\n")
    assert new.endswith("<!-- end -->\nafter\n")
    assert updated(new) == new


def test_updated_refuses_a_table_that_nobody_makes() -> None:
    with pytest.raises(KeyError):
        updated("<!-- generated: nothing -->\n<!-- end -->\n")


def test_flags_are_those_of_the_manual() -> None:
    magic: Any = ChatMagics.chat
    parser = magic.parser
    manual = " ".join(parser.format_help().split())
    rows = re.findall(r"^\| (`-.*) \| (.*) \|$", TABLES["flags"](), re.MULTILINE)
    known = {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
    assert {name for form, _ in rows for name in re.findall(r"`(-\S+?)[ `]", form)} == known
    assert [help for _, help in rows if help not in manual] == []


@pytest.mark.parametrize("name", TABLES)
def test_table_has_one_width(name: str) -> None:
    lines = [line for line in TABLES[name]().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert len(lines) > 3
