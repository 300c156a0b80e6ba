"""What `%load_ext nbllm` adds to a shell, and `%unload_ext nbllm` takes away again."""

from __future__ import annotations

from typing import Any

from nbllm.notebook import completion
from nbllm.notebook.arguments import FLAGS
from nbllm.notebook.compare_arguments import FLAGS as COMPARE_FLAGS
from nbllm.notebook.desk import Desk
from nbllm.notebook.magics import NOT_FOR_CODE, ChatMagics
from nbllm.notebook.models import Models, SessionModels
from nbllm.notebook.next_input import NextInput
from nbllm.notebook.question import keep_question_marks
from nbllm.notebook.seen import Seen
from nbllm.notebook.settings import NbLLM
from nbllm.notebook.shown import KINDS, Shown

_NAME = ChatMagics.__name__


def load_ipython_extension(shell: Any, models: Models | None = None) -> None:
    """Register the magics; a shell that has them keeps them, and its conversations."""
    manager = shell.magics_manager
    if _NAME in manager.registry:
        return
    seen = Seen(shell)
    next_input = NextInput(shell, seen.is_gone)
    desk = Desk(shell, models or SessionModels(), seen, Shown(shell), next_input, NbLLM(parent=shell))
    magics = ChatMagics(shell, desk)
    magics.replaced = {
        kind: {name: manager.magics[kind].get(name) for name in names} for kind, names in magics.magics.items()
    }
    shell.register_magics(magics)
    shell.configurables.append(desk.settings)
    shell.input_transformers_cleanup.append(keep_question_marks)
    for kind in KINDS:
        shell.display_formatter.ipython_display_formatter.for_type(kind, desk.shown.display)
    desk.seen.register()
    completion.register(shell, _sources(magics))


def unload_ipython_extension(shell: Any) -> None:
    """Leave the shell as it was before; harmless in one that has not loaded the extension."""
    manager = shell.magics_manager
    magics = manager.registry.pop(_NAME, None)
    if magics is None:
        return
    for kind, functions in magics.replaced.items():
        for name, function in functions.items():
            manager.magics[kind].pop(name, None)
            if function is not None:
                manager.magics[kind][name] = function
    completion.unregister(shell)
    magics.desk.seen.unregister()
    shell.configurables.remove(magics)
    shell.configurables.remove(magics.desk.settings)
    shell.input_transformers_cleanup.remove(keep_question_marks)
    for kind in KINDS:
        shell.display_formatter.ipython_display_formatter.pop(kind, None)


def _sources(magics: ChatMagics) -> completion.Sources:
    """What the completer offers; nothing of it is asked for before someone presses Tab."""
    desk = magics.desk
    code_flags = [spec for spec in FLAGS if spec.name not in NOT_FOR_CODE]
    return completion.Sources(
        flags={
            "chat": FLAGS,
            "explain": FLAGS,
            "compare": COMPARE_FLAGS,
            **dict.fromkeys(("fix", "doc", "test"), code_flags),
        },
        commands=magics.manager.commands,
        models=_model_names,
        conversations=desk.conversations.names,
        templates=lambda: _template_names(desk),
    )


def _model_names() -> list[str]:
    from nbllm.config import load_config
    from nbllm.store.names import named_models
    from nbllm.store.presets import shelf

    config = load_config()
    return [*named_models(config), *shelf.presets(config)]


def _template_names(desk: Desk) -> list[str]:
    from nbllm.notebook.compose import template_folders
    from nbllm.notebook.templates import listed

    return [template.name for template in listed(template_folders(desk.settings)) if not template.problem]
