"""The shell that a widget is made in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbllm.errors import InvalidRequestError

if TYPE_CHECKING:
    from nbllm.notebook.desk import Desk

_MAGICS = "ChatMagics"
"""What `%load_ext nbllm` registers, by its name in the shell: the magics import the widget, not the other way round."""


def desk_here() -> Desk:
    """The desk of this process's shell, which gets the extension if it has not.

    A desk of the widget's own would do without the magics, but `%load_ext nbllm` after it would make another one: two
    lists of conversations, and what is said in a cell would not be seen in the widget.

    Raises:
        InvalidRequestError: this process has no shell.
    """
    import IPython

    shell = IPython.get_ipython()
    if shell is None:
        raise InvalidRequestError(
            "ChatWidget works in JupyterLab, Notebook 7 and VS Code, and as text in IPython; "
            "in a script, nbllm.load().conversation() has the same without a page"
        )
    registry = shell.magics_manager.registry
    if _MAGICS not in registry:
        shell.extension_manager.load_extension("nbllm")
    desk: Desk = registry[_MAGICS].desk
    return desk


def shows_widgets(shell: Any) -> bool:
    """Whether somebody may be looking: a kernel's cell that could be asked for input.

    nbclient, which runs notebooks without a page, says that it could not; a widget's view that it saves is dead in
    every front end, and hides the text beside it.
    """
    if getattr(shell, "kernel", None) is None:
        return False
    content = shell.get_parent().get("content")
    return not isinstance(content, dict) or content.get("allow_stdin", True) is not False
