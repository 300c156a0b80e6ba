"""What `%load_ext nbllm` adds to a shell, and `%unload_ext nbllm` takes away again."""

from __future__ import annotations

from typing import Any

from nbllm.notebook.magics import ChatMagics
from nbllm.notebook.models import Models
from nbllm.notebook.question import keep_question_marks
from nbllm.notebook.shown import RESPONSE

_NAME = ChatMagics.__name__
_KINDS = ("line", "cell")


def load_ipython_extension(shell: Any, models: Models | None = None) -> None:
    """Register the magics; a shell that has them keeps them, and its conversations."""
    manager = shell.magics_manager
    if _NAME in manager.registry:
        return
    magics = ChatMagics(shell, models)
    magics.replaced = {kind: manager.magics[kind].get("chat") for kind in _KINDS}
    shell.register_magics(magics)
    shell.input_transformers_cleanup.append(keep_question_marks)
    shell.display_formatter.ipython_display_formatter.for_type(RESPONSE, magics.shown.display)


def unload_ipython_extension(shell: Any) -> None:
    """Leave the shell as it was before; harmless in one that has not loaded the extension."""
    manager = shell.magics_manager
    magics = manager.registry.pop(_NAME, None)
    if magics is None:
        return
    for kind, function in magics.replaced.items():
        manager.magics[kind].pop("chat", None)
        if function is not None:
            manager.magics[kind]["chat"] = function
    shell.configurables.remove(magics)
    shell.input_transformers_cleanup.remove(keep_question_marks)
    shell.display_formatter.ipython_display_formatter.pop(RESPONSE, None)
