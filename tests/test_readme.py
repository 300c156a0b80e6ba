"""The README's code runs as it is printed, top to bottom, in one process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RUNNER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(history_length=0)
for block in json.load(sys.stdin):
    result = shell.run_cell(block["code"], store_history=False)
    if not result.success:
        sys.exit(f"README.md, line {block['line']}: {result.error_before_exec or result.error_in_exec!r}")
"""


class Block(NamedTuple):
    """A fenced code block; `line` is that of its opening fence."""

    language: str
    code: str
    line: int


def blocks(*languages: str) -> list[Block]:
    text = README.read_text(encoding="utf-8")
    fenced = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in fenced]
    return [block for block in found if block.language in languages]


@pytest.mark.model
@pytest.mark.usefixtures("smollm2_path")
def test_code_blocks_run_in_order(tmp_path: Path) -> None:
    cells = [block._asdict() for block in blocks("python", "ipython")]
    assert cells
    command, env = [sys.executable, "-c", RUNNER], os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        command, input=json.dumps(cells), capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_two_commands_each_make_their_own_environment() -> None:
    first, second = (block.code for block in blocks("bash")[:2])
    assert re.match(r"python3 -m venv (\S+) && \1/bin/pip install \"\.\[demo\]\" && \1/bin/jupyter lab ", first)
    assert re.match(r"python3 -m venv (\S+) && \1/bin/pip install \"\.\[test\]\" && \1/bin/python -m pytest$", second)
    assert (ROOT / first.split()[-1]).suffix == ".ipynb"


def test_notebook_of_the_first_command_exists() -> None:
    notebook = blocks("bash")[0].code.split()[-1]
    assert (ROOT / notebook).is_file()


def test_local_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
