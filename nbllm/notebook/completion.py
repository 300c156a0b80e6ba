"""What Tab offers on the line of a magic: options and their values, and the commands of `%llm`.

A matcher of IPython's second API among the shell's `custom_matchers`, which the terminal and the kernel both ask. Where
it knows nothing (in prose, for a path), it leaves the place to the others, which complete Python and files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nbllm.notebook.arguments import FORMATS
from nbllm.notebook.manage import SWITCH
from nbllm.session import options

if TYPE_CHECKING:
    from nbllm.notebook.flags import Flag

OPTIONS = tuple(name for name in options.OPTIONS if name != "system")
"""What `-o` takes: the options of Model.chat, but for `system`, which is an option of the magic."""
_PATIENCE_S = 0.5
_VALUES = {
    "--model": "models",
    "--conversation": "conversations",
    "--template": "templates",
    "--option": "options",
    "--output": "variables",
    "--data": "variables",
    "--format": "formats",
}
_ARGUMENTS = {
    "tune": "models",
    "load": "models",
    "unload": "models",
    "attach": "models",
    "show": "models",
    "cp": "models",
    "rm": "models",
    "share": "switch",
    "api": "key",
    "history": "conversations",
    "reset": "conversations",
    "save": "conversations",
    "chat": "conversations",
}
_FIXED: Mapping[str, Sequence[str]] = {"options": OPTIONS, "formats": FORMATS, "switch": SWITCH, "key": ("--key",)}
_LINE = re.compile(r"\s*+(?:(?:[\w.,()\[\]'\" *]++=\s*+)?%|%%)(?P<magic>\w++)[ \t]+(?P<rest>.*)")
_PROSE = re.compile(r"\s*%%(?:chat|compare|llm)\b")
_WORDS = {"compare": "models"}
"""What besides options stands on the line of a magic."""
_OPTION = re.compile(r"(-{1,2}[A-Za-z][\w-]*)[=\s]")
_BEGUN = re.compile(r"-{0,2}|-{1,2}[A-Za-z][\w-]*")
_VALUE = re.compile(r"""(?P<quote>["'])(?:\\.|(?!(?P=quote))[^\\])*+(?P=quote)\s|[^"'\s]\S*\s""")

Names = Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the names come from. The three callables may be slow or fail; they are called in a thread.

    Attributes:
        flags: the options of each magic, by its name without a %.
        commands: those of `%llm`.
    """

    flags: Mapping[str, Sequence[Flag]]
    commands: Sequence[str]
    models: Names
    conversations: Names
    templates: Names


def register(shell: Any, sources: Sources) -> None:
    """Let the shell complete from `sources`, and no longer from any that it had before."""
    unregister(shell)
    shell.Completer.custom_matchers.append(_Matcher(shell, sources).match)


def unregister(shell: Any) -> None:
    """Leave the shell as it was; harmless in one that completes nothing of ours."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if not isinstance(getattr(matcher, "__self__", None), _Matcher)]


class _Spot(NamedTuple):
    """What may stand before the cursor, and what of it is typed."""

    kind: str
    typed: str
    flags: Sequence[Flag] = ()


class _Matcher:
    def __init__(self, shell: Any, sources: Sources) -> None:
        self._shell, self._sources = shell, sources
        self._patient = {
            "models": _Patient(sources.models),
            "conversations": _Patient(sources.conversations),
            "templates": _Patient(sources.templates),
        }

    @context_matcher(identifier="nbllm")  # type: ignore[untyped-decorator]  # IPython's is
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """Whatever goes wrong here would be printed into the middle of the line that is typed."""
        try:
            spot = _spot(context, self._sources)
            names = self._names(spot) if spot else []
        except (Exception, KeyboardInterrupt):  # noqa: BLE001
            spot, names = None, []
        if not spot or not names:
            return {"completions": []}
        after = context.line_with_cursor[context.cursor_position :]
        completions = [SimpleCompletion(text) for text in _matching(names, spot.typed, after)]
        return {"completions": completions, "matched_fragment": spot.typed, "suppress": True}

    def _names(self, spot: _Spot) -> Sequence[str]:
        if spot.kind in self._patient:
            return self._patient[spot.kind].names()
        if spot.kind == "flags":
            return _flag_names(spot)
        if spot.kind == "variables":
            return self._variables(spot.typed)
        return {"commands": self._sources.commands, **_FIXED}.get(spot.kind, ())

    def _variables(self, typed: str) -> list[str]:
        hidden = self._shell.user_ns_hidden
        names = [name for name in list(self._shell.user_ns) if isinstance(name, str) and name not in hidden]
        return names if typed.startswith("_") else [name for name in names if not name.startswith("_")]


class _Patient:
    """The names of a source that may be slow; when it is, those that it gave before."""

    def __init__(self, source: Names) -> None:
        self._source = source
        self._names: list[str] = []
        self._thread: Thread | None = None

    def names(self) -> list[str]:
        if self._thread is None or not self._thread.is_alive():
            self._thread = Thread(target=self._ask, name="nbllm-completion", daemon=True)
            self._thread.start()
        self._thread.join(_PATIENCE_S)
        return self._names

    def _ask(self) -> None:
        try:
            self._names = [name for name in self._source() if name.isprintable()]
        except Exception:  # noqa: BLE001  # a thread's error would be printed into the line that is typed
            self._names = []


def _spot(context: CompletionContext, sources: Sources) -> _Spot | None:
    line = _LINE.fullmatch(context.text_until_cursor)
    if line is None or _is_body(context):
        return None
    if line["magic"] == "llm":
        return _command_spot(line["rest"])
    flags = sources.flags.get(line["magic"])
    return None if flags is None else _flag_spot(line["rest"], flags, _WORDS.get(line["magic"]))


def _is_body(context: CompletionContext) -> bool:
    """Whether the line is text below `%%chat`, `%%compare` or `%%llm`, or a cell magic that begins no cell."""
    above = [line for line in context.full_text.split("\n")[: context.cursor_line] if line.strip()]
    return bool(above) and (bool(_PROSE.match(above[0])) or context.line_with_cursor.lstrip().startswith("%%"))


def _command_spot(rest: str) -> _Spot | None:
    command, space, argument = rest.lstrip().partition(" ")
    if not space:
        return _Spot("commands", command)
    argument = argument.lstrip()
    return None if _VALUE.match(argument) else _Spot(_ARGUMENTS.get(command, ""), argument)


def _flag_spot(rest: str, flags: Sequence[Flag], words: str | None) -> _Spot | None:
    """Behind what is complete: an option or a word that is begun, or the value of the last option. None is prose.

    Args:
        words: what stands among the options, None where the first word that is none begins the prose.
    """
    by_name = {name: flag for flag in flags for name in (flag.long, flag.short) if name}
    while rest := rest.lstrip():
        option = _OPTION.match(rest)
        if option is None:
            word = _VALUE.match(rest) if words else None
            if word is None:
                break
            rest = rest[word.end() :]
            continue
        flag = by_name.get(option[1])
        if flag is None:
            return None
        rest = rest[option.end() :]
        for kind in _value_kinds(flag):
            rest = rest.lstrip()
            value = _VALUE.match(rest)
            if value is None:
                return _Spot(kind, rest)
            rest = rest[value.end() :]
    if _BEGUN.fullmatch(rest) and (rest or not words):
        return _Spot("flags", rest, flags)
    return _Spot(words, rest) if words else None


def _value_kinds(flag: Flag) -> list[str]:
    """Of an option with two values only the first is a name."""
    num_values = 0 if flag.metavar is None else 1 if isinstance(flag.metavar, str) else len(flag.metavar)
    return [_VALUES.get(flag.long, ""), ""][:num_values]


def _flag_names(spot: _Spot) -> list[str]:
    """The long names; also the short ones after a dash that could begin either."""
    short = [flag.short for flag in spot.flags if flag.short] if spot.typed.startswith("-") else []
    return [*short, *(flag.long for flag in spot.flags)]


def _matching(names: Iterable[str], typed: str, after: str) -> list[str]:
    """In any case, and with quotes where the magic needs them, or the person has begun one."""
    quote = typed[0] if typed[:1] in ("'", '"') else ""
    begun = re.sub(r"\\([\"'])", r"\1", typed[len(quote) :]).casefold()
    is_closed = bool(quote) and after.startswith(quote)
    matching = [name for name in names if name.casefold().startswith(begun)]
    return [_quoted(name, quote).removesuffix(quote if is_closed else "") for name in matching]


def _quoted(name: str, quote: str) -> str:
    if not quote and name and name[0] not in "\"'" and not re.search(r"\s", name):
        return name
    quote = quote or '"'
    return f"{quote}{name.replace(quote, f'{chr(92)}{quote}')}{quote}"
