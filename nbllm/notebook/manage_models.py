"""The commands of `%llm` that get, make, look at and remove models."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from nbllm.errors import in_one_line
from nbllm.notebook.command_words import expect
from nbllm.notebook.flags import as_value

if TYPE_CHECKING:
    from nbllm.config import Config
    from nbllm.notebook.desk import Desk
    from nbllm.session.model import Model
    from nbllm.store.removing import Removal

MAKE = "write %llm create NAME -f FILE, or %llm create NAME from=MODEL, or %%llm create NAME above a Modelfile"
MODEL_FLAGS: Mapping[str, tuple[str, ...]] = {"show": ("--modelfile",), "cp": ("--force",), "rm": ("--force",)}
"""What stands behind the names of models."""


class ModelCommands:
    """Runs the sub-commands. Each returns a value for the cell, or says what it has to say.

    Args:
        say: shows a text in the running cell.
    """

    def __init__(self, desk: Desk, say: Callable[[str], None]) -> None:
        self._desk, self._say = desk, say

    def models(self, words: list[str]) -> Any:
        expect("models", words, "", 0)
        from nbllm.frames.listing import models

        return models()

    def pull(self, words: list[str]) -> None:
        expect("pull", words, "[NAME]", 0, 1)
        from nbllm.config import load_config
        from nbllm.store.foreign import total_memory
        from nbllm.store.pulling.typed import pull_typed, suggestions

        config, memory = load_config(), total_memory()
        if words:
            try:
                self._say(pull_typed(words[0], config=config, memory_bytes=memory, file=sys.stdout))
            except KeyboardInterrupt as interrupt:
                in_one_line(interrupt, "the pull was stopped")
                raise
        else:
            self._say(f"{suggestions(config, memory)}\n\nTo get one:  %llm pull NAME")

    def load(self, words: list[str]) -> None:
        expect("load", words, "NAME [OPTION=VALUE ...]", 1, 100)
        options = dict(_option(word) for word in words[1:])
        if "lora" in options:  # cells ask for models by their names, and this one has none
            raise UsageError(f"make a preset with it: %llm create NAME from={words[0]} adapter={options['lora']}")
        model = self._desk.models.load(words[0], **options)
        self._say(model.info.summary)

    def unload(self, words: list[str]) -> None:
        expect("unload", words, "[NAME]", 0, 1)
        closed = _closed(self._loaded_as(words[0]) if words else self._desk.models.all_loaded())
        self._say("\n".join(f"{name} was unloaded" for name in closed) or "no model is loaded")

    def attach(self, words: list[str]) -> None:
        expect("attach", words, "[NAME]", 0, 1)
        name = words[0] if words else self._desk.settings.model
        model = self._desk.models.load(name, engine="server")
        if words:
            self._desk.settings.model = name
        self._say(f"{model.info.summary}\ncells use this one")

    def create(self, words: list[str], cell: str | None = None) -> None:
        """Make a preset of a file, of options, or of the Modelfile below `%%llm create`."""
        from nbllm.config import load_config
        from nbllm.session import creating

        if not words or (cell is not None and len(words) > 1):
            raise UsageError(MAKE)
        (name, *rest), config, here = words, load_config(), Path.cwd()
        if cell is not None:
            made = creating.from_modelfile(
                name, f"\n{cell}", here, config
            )  # the cell's first line is that of the magic
        elif rest[:1] in (["-f"], ["--file"]):
            expect("create", rest, "NAME -f FILE", 2)
            made = creating.from_file(name, Path(rest[1]), config)
        elif rest:
            made = creating.from_options(name, rest, here, config)
        else:
            raise UsageError(MAKE)
        self._say(made.text)

    def show(self, words: list[str]) -> None:
        """The facts of a model, or a Modelfile for it."""
        names = _names("show", words, 1, "[NAME [--modelfile]]")
        from nbllm.config import load_config
        from nbllm.store import showing

        config = load_config()
        if "--modelfile" in words:
            self._say(showing.modelfile_text(names[0], config).rstrip("\n"))
        else:
            self._say(showing.facts_text(showing.facts(names[0], config)))

    def cp(self, words: list[str]) -> None:
        names = _names("cp", words, 2, "SOURCE DESTINATION [--force]")
        from nbllm.config import load_config
        from nbllm.store import copying

        source, destination = names
        made = copying.copy(source, destination, load_config(), may_replace="--force" in words)
        self._say(f"{made.name} is a copy of {source}; no bytes of the weights were copied")

    def rm(self, words: list[str]) -> None:
        names = _names("rm", words, 1, "NAME [NAME ...] [--force]", most=100)
        from nbllm.config import load_config
        from nbllm.store.removing import removal, removal_order

        config = load_config()
        for name in removal_order(names, config, force="--force" in words):
            self._remove(removal(name, config), config)

    def _remove(self, found: Removal, config: Config) -> None:
        from nbllm.runner.holders import note_of_holders

        unloaded = [f"{name} was unloaded" for name in _closed(self._loaded_from(found))]
        elsewhere = note_of_holders(found.name, found.paths, config.runtime_dir)  # a process of its own has ended now
        self._say("\n".join([*unloaded, found.text, *filter(None, (elsewhere, found.warning))]))
        found.do()

    def _loaded_as(self, name: str) -> list[Model]:
        """The last one of that name; a preset's file may have been changed or removed since it was loaded."""
        called = [model for model in self._desk.models.all_loaded() if model.name == name][-1:]
        meant = None if called else self._desk.models.loaded(name)
        return called if meant is None else [meant]

    def _loaded_from(self, found: Removal) -> list[Model]:
        """Those of the files, and those of a preset that goes while its base stays."""
        real = {os.path.realpath(path) for path in found.paths}
        return [
            model
            for model in self._desk.models.all_loaded()
            if os.path.realpath(model.info.model.path) in real
            or (model.preset is not None and model.name == found.name)
        ]


def _closed(models: Collection[Model]) -> list[str]:
    for model in models:
        model.close()
    return [model.name for model in models]


def _names(command: str, words: list[str], num_names: int, form: str, *, most: int | None = None) -> list[str]:
    """The names, without the switches that the command takes.

    Args:
        most: where more than `num_names` are possible.
    """
    names = [word for word in words if word not in MODEL_FLAGS[command]]
    if any(name.startswith("-") for name in names):
        raise UsageError(f"write %llm {command} {form}")
    expect(command, names, form, num_names, most)
    return names


def _option(word: str) -> tuple[str, Any]:
    name, equals, text = word.partition("=")
    if not equals or not name:
        raise UsageError(f"%llm load takes options as NAME=VALUE, such as context_length=4096, not {word!r}")
    if text in ("True", "False", "None"):
        return name, {"True": True, "False": False, "None": None}[text]
    return name, as_value(text)
