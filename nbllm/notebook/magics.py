"""The magics: parse, run, return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from nbllm.notebook.arguments import chat_arguments, parse
from nbllm.notebook.conversations import Conversations
from nbllm.notebook.models import Models, SessionModels
from nbllm.notebook.shown import Shown

if TYPE_CHECKING:
    from nbllm.session.response import Response


@magics_class
class ChatMagics(Magics):
    """`%chat` and `%%chat` in one shell, with the conversations of its cells.

    Attributes:
        replaced: the magics of that name that the shell had before, by kind.
    """

    def __init__(self, shell: Any, models: Models | None = None) -> None:
        super().__init__(shell)
        self.shown = Shown(shell)
        self._namespace: dict[str, Any] = shell.user_ns
        self.replaced: dict[str, Any] = {}
        self._models = models or SessionModels()
        self._conversations = Conversations()

    @no_var_expand
    @line_cell_magic
    @chat_arguments
    def chat(self, line: str, cell: str | None = None) -> Response | None:
        """Ask a language model, and see its answer as it is written.

        %chat [options] a question on one line, or %%chat [options] and a text below it. Cells go on with the
        conversation of the cells before that had the same model and system message. Interrupting the kernel stops
        the answer and keeps what there is of it. The answer is also the cell's value: _, Out[n], r = %chat ...
        """
        from nbllm.notebook.cell import Cell
        from nbllm.notebook.display import answer_view

        asked = parse(line, cell)

        def keep(response: Response) -> None:
            self.shown.note(response)
            if asked.output:
                self._namespace[asked.output] = response

        return Cell(asked, self._models, self._conversations, answer_view(self.shell), keep).run()
