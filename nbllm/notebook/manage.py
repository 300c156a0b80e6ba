"""`%llm`: the models, conversations, templates and settings behind the cells."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from nbllm.errors import EngineError
from nbllm.notebook.command_words import expect
from nbllm.notebook.history import counted
from nbllm.notebook.manage_models import ModelCommands

if TYPE_CHECKING:
    from nbllm.notebook.api import Api
    from nbllm.notebook.desk import Desk
    from nbllm.notebook.tree import Tree
    from nbllm.notebook.widget.chat_widget import ChatWidget
    from nbllm.session.model import Model

MANUAL = """\
%llm models                    the models of this machine, as a DataFrame
%llm pull [NAME]               get a model: smollm2:1.7b, hf:org/repo:Q4_K_M, a name of Ollama's; alone, what fits here
%llm tune NAME                 measure what makes it fast here, and use that; --max-kl 0.05, --dry-run, --forget
%llm create NAME [from=MODEL]  make a model of another, with options; or -f FILE, or %%llm create NAME above a Modelfile
%llm cp SOURCE DESTINATION     give a model another name, to change what it is made with; its bytes are not copied
%llm rm NAME [NAME ...]        remove models or presets from this machine, and say what that frees
%llm load NAME [OPTION=VALUE]  load a model, as nbllm.load does: %llm load smollm2 context_length=4096
%llm unload [NAME]             free its memory; without a name, that of every loaded model
%llm attach [NAME]             use the copy that another process holds, or load it into one of its own; cells use it
%llm share [on|off]            whether your other programs, such as the notebook server, may use this kernel's models
%llm api [--key NAME]          how other programs reach the models: base URL, key, lines for openai, LangChain, curl
%llm status                    what is loaded and what it is doing, and the current conversation
%llm history [NAME]            the turns of a conversation; --all lists the conversations
%llm reset [NAME]              forget the current conversation, or that one; --all forgets every one
%llm undo                      go back before the last turn
%llm save FILE [NAME]          write a conversation as JSON lines of OpenAI's messages
%llm open FILE [NAME]          read one, and go on with it
%llm chat [NAME|ID]            a chat beside the code, in a conversation, or in a chat that an earlier kernel kept
%llm show [NAME]               exactly what was sent last, with the tokens of each part; a model's facts, or --modelfile
%llm config                    the settings; %config NbLLM.cache = True changes one
%llm templates                 the templates that -t finds"""

SWITCH = ("on", "off")
"""What `%llm share` takes."""
_MANUAL_NAMES = ("", "help", "-h", "--help")


class Manager:
    """Runs the sub-commands. Each returns a value for the cell, or shows what it has to say."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._models = ModelCommands(desk, self._say)
        self._commands: dict[str, Callable[[list[str]], Any]] = {
            "models": self._models.models,
            "pull": self._models.pull,
            "tune": self._tune,
            "create": self._models.create,
            "cp": self._models.cp,
            "rm": self._models.rm,
            "load": self._models.load,
            "unload": self._models.unload,
            "attach": self._models.attach,
            "share": self._share,
            "api": self._api,
            "status": self._status,
            "history": self._history,
            "reset": self._reset,
            "undo": self._undo,
            "save": self._save,
            "open": self._open,
            "chat": self._chat,
            "show": self._show,
            "config": self._config,
            "templates": self._templates,
        }

    @property
    def commands(self) -> list[str]:
        return list(self._commands)

    def run(self, line: str, cell: str | None = None) -> Any:
        """Run one command line; an empty one shows the manual.

        Args:
            cell: what stands below the line, of which only `create` makes something.

        Raises:
            UsageError: there is no such command, or it takes other arguments.
        """
        try:
            name, *words = shlex.split(line) or [""]
        except ValueError as error:
            raise UsageError(f"%llm: {error}; quote a name that holds spaces or quotes") from error
        if name in _MANUAL_NAMES:
            self._say(MANUAL)
            return None
        command = self._commands.get(name)
        if command is None:
            close = difflib.get_close_matches(name, self._commands, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(self._commands)}"
            raise UsageError(f"%llm has no command {name!r}: {hint}")
        if cell is None:
            return command(words)
        if name != "create":
            raise UsageError(
                f"%%llm is for %%llm create NAME above a Modelfile; write %llm {name} on a line of its own"
            )
        return self._models.create(words, cell)

    def _tune(self, words: list[str]) -> Any:
        from nbllm.notebook.tuning import tune

        return tune(words, self._say)

    def _share(self, words: list[str]) -> None:
        expect("share", words, "[on|off]", 0, 1)
        from nbllm.session import sharing

        if words:
            if words[0] not in SWITCH:
                raise UsageError(f"write %llm share on or %llm share off, not {words[0]!r}")
            sharing.set_on(words[0] == "on")
        if not sharing.is_on():
            self._say("sharing is off: only this kernel uses its models")
            return
        lines = [f"{one.name} is not shared: {one.problem}" for one in sharing.shared_models() if one.problem]
        self._say("\n".join(["sharing is on: your other programs may use the models of this kernel", *lines]))

    def _api(self, words: list[str]) -> Api:
        name = words[1] if len(words) == 2 and words[0] == "--key" else None
        if words and name is None:
            raise UsageError("write %llm api [--key NAME]")
        from nbllm.notebook import api

        key = None if name is None else api.new_key(name)
        model = self._desk.settings.model or self._desk.models.default()
        text = api.manual(model, key)
        if key is not None:
            text += (
                "\n\nThe key is in this output, and so in the notebook's file: clear the output before you give the "
                f"file away.\nTo make the key void:  jupyter nbllm keys revoke {name}"
            )
        return api.Api(api.running_server(), model, key, text, self._say)

    def _status(self, words: list[str]) -> None:
        expect("status", words, "", 0)
        lines = []
        for model in self._desk.models.all_loaded():
            lines += [model.info.summary, f"  {_activity(model)}"]
        tree = self._desk.conversations.current
        lines = lines or [f"no model is loaded; the first cell loads {self._desk.models.default()}"]
        place = f"conversation {tree.name}, {counted(len(tree.path()), 'turn')}" if tree else "no conversation yet"
        self._say("\n".join([*lines, place]))

    # ---- conversations

    def _history(self, words: list[str]) -> None:
        expect("history", words, "[NAME] or --all", 0, 1)
        from nbllm.notebook import history

        if words == ["--all"]:
            self._say_both(*history.overview(self._desk.conversations))
        else:
            self._say_both(*history.render(self._tree(words)))

    def _reset(self, words: list[str]) -> None:
        expect("reset", words, "[NAME] or --all", 0, 1)
        if words == ["--all"]:
            self._desk.conversations.reset()
            self._say("every conversation is forgotten")
        else:
            name = self._tree(words).name
            self._desk.conversations.reset(name)
            self._say(f"the conversation {name} is forgotten")

    def _undo(self, words: list[str]) -> None:
        expect("undo", words, "", 0)
        turn = self._tree([]).undo()
        question = turn.question.content
        self._say(f"the last turn is undone: {question[:60]}{'…' if len(question) > 60 else ''}")

    def _save(self, words: list[str]) -> None:
        expect("save", words, "FILE [NAME]", 1, 2)
        tree = self._tree(words[1:])
        path = self._desk.conversations.save(tree, words[0])
        self._say(f"saved {counted(len(tree.path()), 'turn')} of {tree.name} to {path}")

    def _open(self, words: list[str]) -> None:
        expect("open", words, "FILE [NAME]", 1, 2)
        tree = self._desk.conversations.open(words[0], *words[1:])
        self._say(f"opened {tree.name}, {counted(len(tree.path()), 'turn')}; the next cell goes on with it")

    def _chat(self, words: list[str]) -> ChatWidget:
        expect("chat", words, "[NAME|ID]", 0, 1)
        from nbllm.notebook.widget.opening import opened

        return opened(self._desk, *words)

    def _tree(self, words: Sequence[str]) -> Tree:
        from nbllm.errors import InvalidRequestError

        if words:
            return self._desk.conversations.get(words[0])
        tree = self._desk.conversations.current
        if tree is None:
            raise InvalidRequestError("there is no conversation yet; a %%chat cell begins one")
        return tree

    # ---- the rest

    def _show(self, words: list[str]) -> None:
        if words:
            self._models.show(words)
            return
        from nbllm.errors import InvalidRequestError
        from nbllm.notebook.sent import describe

        sent = self._desk.last_sent
        if sent is None:
            raise InvalidRequestError("nothing was sent yet; run a %%chat cell first")
        model = self._desk.models.loaded(sent.model) or self._desk.models.load(sent.model)
        self._say(describe(sent.request, model))

    def _config(self, words: list[str]) -> None:
        expect("config", words, "", 0)
        settings = self._desk.settings
        lines = [
            f"NbLLM.{name} = {getattr(settings, name)!r}  # {trait.help}"
            for name, trait in sorted(settings.traits(config=True).items())
        ]
        self._say("\n".join([*lines, *self._machine()]))

    def _machine(self) -> list[str]:
        from dataclasses import fields

        from nbllm.config import load_config

        config = load_config()
        return [f"NBLLM_{spec.name.upper()} = {getattr(config, spec.name)}" for spec in fields(config)]

    def _templates(self, words: list[str]) -> None:
        expect("templates", words, "", 0)
        from nbllm.notebook.compose import template_folders
        from nbllm.notebook.templates import listed

        folders = template_folders(self._desk.settings)
        lines = [
            f"{one.name}  {f'cannot be used: {one.problem}' if one.problem else one.description}  ({one.path})"
            for one in listed(folders)
        ]
        self._say("\n".join(lines) or f"there are no templates; put NAME.md into {' or '.join(folders)}")

    def _say(self, text: str) -> None:
        from nbllm.markup.characters import plain_text
        from nbllm.markup.code import fence

        self._say_both(text, fence(plain_text(text).split("\n"), "text"))

    def _say_both(self, plain: str, markdown: str) -> None:
        from nbllm.markup.characters import plain_text

        self._desk.show({"text/plain": plain_text(plain), "text/markdown": markdown})


def _activity(model: Model) -> str:
    try:
        stats = model.stats
    except EngineError as error:  # it lives in another process, which has gone
        return str(error)
    return (
        f"{stats.num_running} running, {stats.num_waiting} waiting, {stats.threads} threads; so far "
        f"{stats.prompt_tokens:,} tokens in ({stats.cached_tokens:,} cached), {stats.completion_tokens:,} out"
    )
