"""The magics: parse, run, return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_cell_magic, line_magic, magics_class, no_var_expand

from nbllm.errors import InvalidRequestError
from nbllm.notebook.arguments import ChatArguments, chat_arguments, parse
from nbllm.notebook.compare_arguments import compare_arguments, parse_compare
from nbllm.notebook.compose import Composer
from nbllm.notebook.manage import MANUAL, Manager

if TYPE_CHECKING:
    import pandas as pd

    from nbllm.notebook.desk import Desk
    from nbllm.session.response import Response

Check = Callable[[str, str, Callable[[str], str]], None]
NOT_FOR_CODE = ("schema", "format", "extract", "continue", "conversation", "new")
"""Options of %chat that make no sense where the answer is code for the cell."""


@magics_class
class ChatMagics(Magics):
    """The magics of one shell, over what its cells share.

    Attributes:
        replaced: the magics of the same names that the shell had before, by kind and name.
    """

    def __init__(self, shell: Any, desk: Desk) -> None:
        super().__init__(shell)
        self.desk = desk
        self.manager = Manager(desk)
        self.replaced: dict[str, dict[str, Any]] = {}
        self._transform = shell.transform_cell
        self._composer = Composer(shell, desk.seen, desk.settings)

    @no_var_expand
    @line_cell_magic
    @chat_arguments
    def chat(self, line: str, cell: str | None = None) -> Response | None:
        """Ask a language model, and see its answer as it is written.

        %chat [options] a question on one line, or %%chat [options] and a text below it. {name}, {obj.attr} and {x[0]}
        in it become the values of variables, {df} a summary of a table ({df:head=20}, {df:full}), {In[3]}, {Out[3]}
        and {Err[3]} what an earlier cell said; {{ is {. Cells go on with the conversation of the cells before them,
        and a cell that is run again takes its old place in it. Interrupting the kernel stops the answer and keeps
        what there is of it. The answer is also the cell's value: _, Out[n], r = %chat ...
        """
        return self._run(self._composer.compose(parse(line, cell)))

    @no_var_expand
    @cell_magic
    @compare_arguments
    def compare(self, line: str, cell: str) -> pd.DataFrame:
        """Ask several models the same, and see their answers side by side.

        %%compare MODEL MODEL [options], and the prompt below; a line --- stands between two prompts. Options with
        several values, such as --temperature 0,0.8, are tried in every combination. {name} is a variable as in
        %%chat, or with --data VAR a column of that table, each of whose rows is a case. The models run one after the
        other, and one that was not loaded before is closed again. The DataFrame is the cell's value: _, Out[n], -O VAR.
        """
        from nbllm.notebook.comparing import Comparing

        frame = Comparing(parse_compare(line, cell), self.desk, self._composer).run()
        self.desk.shown.note(frame)
        return frame

    @no_var_expand
    @line_magic
    def explain(self, line: str) -> Response | None:
        """Explain the last error: its traceback, the code of the cell, and the types of its variables are sent.

        %explain [options of %chat] [a question about it]
        """
        from nbllm.notebook.verbs import explain_prompt

        failure = self.desk.seen.last_error
        if failure is None:
            raise InvalidRequestError("no cell has failed yet, so there is nothing to explain")
        asked = parse(line)
        if asked.has("continue"):
            raise UsageError("--continue is for %chat; %explain asks something new")
        return self._run(self._composer.compose(asked, before=explain_prompt(failure)))

    @no_var_expand
    @cell_magic
    def fix(self, line: str, cell: str) -> Response | None:
        """Repair the code below: shows what changes, and puts the new code into this cell.

        %%fix [options of %chat] [what is wrong], and the code. If it has just failed, the error is sent along.
        """
        from nbllm.notebook.verbs import fix_prompt

        return self._rewrite(line, cell, fix_prompt(cell, self.desk.seen.failure_of(cell)))

    @no_var_expand
    @cell_magic
    def doc(self, line: str, cell: str) -> Response | None:
        """Write docstrings into the code below: shows what changes, and puts the new code into this cell.

        %%doc [options of %chat] [wishes], and the code.
        """
        from nbllm.notebook.kept import check_only_docstrings
        from nbllm.notebook.verbs import doc_prompt

        return self._rewrite(line, cell, doc_prompt(cell), check_only_docstrings)

    @no_var_expand
    @cell_magic
    def test(self, line: str, cell: str) -> Response | None:
        """Write tests below the code: shows what changes, and puts the new code into this cell.

        %%test [options of %chat] [wishes], and the code.
        """
        from nbllm.notebook.kept import check_nothing_lost
        from nbllm.notebook.verbs import test_prompt

        return self._rewrite(line, cell, test_prompt(cell), check_nothing_lost)

    @no_var_expand
    @line_cell_magic
    def llm(self, line: str, cell: str | None = None) -> Any:
        return self.manager.run(line, cell)

    llm.__doc__ = MANUAL

    def _rewrite(self, line: str, code: str, prompt: str, check: Check | None = None) -> Response | None:
        """Ask for the cell's new code. `check` refuses one that must not take its place."""
        from nbllm.notebook.verbs import diff as diff_of
        from nbllm.notebook.verbs import diff_markdown, new_code, problem

        asked = parse(line)
        for name in NOT_FOR_CODE:
            if asked.has(name):
                raise UsageError(f"--{name} is for %%chat; leave it out here")
        if check is not None and (wrong := problem(code, self._transform)):
            raise InvalidRequestError(f"the code is not valid Python ({wrong}); correct it, or put %%fix on top of it")
        response = self._run(self._composer.compose(replace(asked, no_history=True), before=prompt))
        if response is None or response.finish_reason != "stop":
            return response  # half of a cell must not take the place of a whole one
        new = new_code(response.text, code, self._transform)
        if check is not None:
            check(code, new, self._transform)
        self.desk.show({"text/plain": diff_of(code, new), "text/markdown": diff_markdown(code, new)})
        self.desk.next_input.replace(new)
        return response

    def _run(self, asked: ChatArguments) -> Response | None:
        from nbllm.notebook.cell import Cell
        from nbllm.notebook.display import answer_view

        def keep(response: Response) -> None:
            self.desk.shown.note(response)
            if asked.output:
                self.desk.namespace[asked.output] = response

        return Cell(asked, self.desk, answer_view(self.shell, asked.format), keep).run()
