"""`jupyter nbllm show|create|cp|rm`: what `%llm` does with models, in a terminal.

Exit codes are those of `jupyter nbllm`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nbllm.config import load_config
from nbllm.server import status


def show(words: Sequence[str]) -> int:
    """Tell a model's facts, as text, as JSON or as a Modelfile."""
    from nbllm.store import showing

    parser = _parser("show", "What is known of a model.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--modelfile", action="store_true", help="as a Modelfile that makes the same model again")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    asked, config = parser.parse_args(words), load_config()
    if asked.modelfile:
        return _said(showing.modelfile_text(asked.name, config).rstrip("\n"))
    found = showing.facts(asked.name, config)
    return _said(status.json_text(found).rstrip("\n") if asked.json else showing.facts_text(found))


def create(words: Sequence[str]) -> int:
    """Make a preset."""
    from nbllm.session import creating

    parser = _parser("create", "Make a model of your own: another one's weights with settings and instructions.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-f", "--file", metavar="FILE", type=Path, help="a Modelfile, or a preset in TOML")
    parser.add_argument(
        "options",
        metavar="OPTION=VALUE",
        nargs="*",
        help='without a file: from=MODEL, system="...", temperature=0.2 and other parameters',
    )
    asked, config = parser.parse_intermixed_args(words), load_config()
    if bool(asked.file) == bool(asked.options):
        parser.error("write  create NAME -f FILE  or  create NAME from=MODEL")
    if asked.file:
        return _said(creating.from_file(asked.name, asked.file, config).text)
    return _said(creating.from_options(asked.name, asked.options, Path.cwd(), config).text)


def cp(words: Sequence[str]) -> int:
    """Give a model another name."""
    from nbllm.store import copying

    parser = _parser("cp", "Give a model another name, to change what it is made with; its bytes are not copied.")
    parser.add_argument("source", metavar="SOURCE")
    parser.add_argument("destination", metavar="DESTINATION")
    parser.add_argument("--force", action="store_true", help="in the place of another preset of that name")
    asked = parser.parse_args(words)
    made = copying.copy(asked.source, asked.destination, load_config(), may_replace=asked.force)
    return _said(f"{made.name} is a copy of {asked.source}; no bytes of the weights were copied")


def rm(words: Sequence[str]) -> int:
    """Say what goes, and remove it."""
    from nbllm.runner.holders import note_of_holders
    from nbllm.store.removing import removal, removal_order

    parser = _parser("rm", "Remove models or presets from this machine, and say what that frees.")
    parser.add_argument("names", metavar="NAME", nargs="+")
    parser.add_argument("--force", action="store_true", help="also if presets are made of it")
    asked, config = parser.parse_args(words), load_config()
    for name in removal_order(asked.names, config, force=asked.force):
        found = removal(name, config)
        held = note_of_holders(found.name, found.paths, config.runtime_dir)
        _said("\n".join([found.text, *filter(None, (held, found.warning))]))
        found.do()
    return 0


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"show": show, "create": create, "cp": cp, "rm": rm}


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"jupyter nbllm {command}", description=description)


def _said(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return 0
