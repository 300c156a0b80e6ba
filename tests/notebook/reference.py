"""The tables of README.md that say what the code says: `python -m tests.notebook.reference` writes them again."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

from nbllm.notebook import manage
from nbllm.notebook.arguments import FLAGS
from nbllm.notebook.compare_arguments import FLAGS as COMPARE_FLAGS
from nbllm.notebook.flags import Flag
from nbllm.notebook.magics import NOT_FOR_CODE, ChatMagics
from nbllm.notebook.settings import NbLLM
from nbllm.server import failures
from tests.notebook.kernel import ROOT

README = ROOT / "README.md"
_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>\w+) -->\n).*?(?P<end>^<!-- end -->$)", re.DOTALL | re.MULTILINE
)
_COMMAND = re.compile(r"(?P<form>%llm \S+(?: \S+)*) {2,}(?P<help>.+)")


def updated(text: str) -> str:
    """`text` with what stands between its markers made anew; a marker of no table is a KeyError."""
    return _BLOCK.sub(lambda match: f"{match['begin']}\n{TABLES[match['name']]()}\n\n{match['end']}", text)


def magics() -> str:
    """Each magic with the first sentence of its manual."""
    found: dict[str, tuple[list[str], str]] = {}
    for kind, sign in (("line", "%"), ("cell", "%%")):
        for name, method in ChatMagics.magics[kind].items():
            found.setdefault(name, ([], _summary(getattr(ChatMagics, method))))[0].append(f"`{sign}{name}`")
    return _table(("magic", "what it does"), ((", ".join(forms), summary) for forms, summary in found.values()))


def _summary(magic: Any) -> str:
    if magic is ChatMagics.llm:  # its manual is the table of its commands
        text = str(manage.__doc__).partition(": ")[2]
        return f"{text[0].upper()}{text[1:].strip()}"
    manual = magic.parser.description if hasattr(magic, "parser") else magic.__doc__
    return " ".join(inspect.cleandoc(manual).partition("\n\n")[0].split())


def flags() -> str:
    """The options of `%chat`, as `%chat?` lists them."""
    others = [spec.long for spec in FLAGS if spec.name in NOT_FOR_CODE]
    return (
        f"{_options(FLAGS)}\n\n`%explain` takes them too; `%%fix`, `%%doc` and `%%test` take all but {_listed(others)}."
    )


def compare_flags() -> str:
    """The options of `%%compare`, as `%%compare?` lists them."""
    return _options(COMPARE_FLAGS)


def _options(flags: Iterable[Flag]) -> str:
    return _table(("option", "what it does"), ((_form(spec), spec.help) for spec in flags))


def _form(spec: Flag) -> str:
    values = (spec.metavar,) if isinstance(spec.metavar, str) else spec.metavar or ()
    names = [name for name in (spec.short, spec.long) if name]
    return (
        ", ".join(f"`{name}`" for name in names[:-1])
        + (", " if names[1:] else "")
        + f"`{' '.join((names[-1], *values))}`"
    )


def _listed(names: list[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def commands() -> str:
    """The commands of `%llm`, as `%llm` alone lists them."""
    rows = []
    for line in manage.MANUAL.splitlines():
        match = _COMMAND.fullmatch(line)
        if match is None:
            raise ValueError(f"no line of a table: {line!r}")
        rows.append((f"`{match['form']}`", match["help"]))
    return _table(("command", "what it does"), rows)


def settings() -> str:
    """The traits of NbLLM."""
    traits = NbLLM.class_traits(config=True)
    rows = ((f"`NbLLM.{name}`", f"`{trait.default()!r}`", trait.help) for name, trait in sorted(traits.items()))
    return _table(("setting", "at first", "what it does"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in ([cell.replace("|", "\\|") for cell in line] for line in lines)
    )


TABLES: dict[str, Callable[[], str]] = {
    "magics": magics,
    "flags": flags,
    "compare_flags": compare_flags,
    "commands": commands,
    "settings": settings,
    "failures": failures.markdown_table,
}


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
