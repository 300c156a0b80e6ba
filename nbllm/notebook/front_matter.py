"""The lines of YAML between two `---` at the top of a Markdown file, which anybody may have written.

Errors say what to change in the file; whoever knows its name puts it before them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbllm.errors import InvalidRequestError

if TYPE_CHECKING:
    import yaml

# PyYAML is written in Python: with these it takes a quarter of a second at most.
_MAX_CHARACTERS, _MAX_EVENTS, _MAX_DEPTH = 64 * 1024, 1000, 10
_OPENING = re.compile(r"---[ \t]*(?:\n|\Z)")
_FENCED = re.compile(r"---[ \t]*\n(?P<front>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What the keys hold, as YAML takes it and as it was written."""

    values: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, yaml.Node] = field(default_factory=dict)

    def text(self, key: str) -> str | None:
        """As it was written: YAML takes 1.10 for a number, `no` for False and a day for a date."""
        return _text(self.nodes.get(key), key)

    def texts(self, key: str) -> dict[str, str]:
        """A mapping whose values are text as it was written."""
        pairs = _pairs(self.nodes.get(key), key)
        return {name: _text(node, f"{key}: {name!r:.100}") or "" for name, node in pairs.items()}

    def mapping(self, key: str) -> dict[Any, Any]:
        """A mapping with YAML's values."""
        _pairs(self.nodes.get(key), key)
        return dict(self.values.get(key) or {})


def split(text: str) -> tuple[FrontMatter, str]:
    """The front matter, empty if there is none, and the text after it.

    Raises:
        InvalidRequestError: it has no end, or is not a mapping in plain YAML.
    """
    if not _OPENING.match(text):
        return FrontMatter(), text
    match = _FENCED.match(text)
    if match is None:
        raise InvalidRequestError("the front matter does not end; write a line of --- after it")
    return _parsed(match["front"]), text[match.end() :]


def _parsed(front: str) -> FrontMatter:
    if len(front) > _MAX_CHARACTERS:
        raise InvalidRequestError(f"the front matter has more than {_MAX_CHARACTERS:,} characters; shorten it")
    import yaml

    try:
        _refuse_tricks(yaml.parse(front, Loader=yaml.SafeLoader))
        nodes = _pairs(yaml.compose(front, Loader=yaml.SafeLoader), "the front matter")
        return FrontMatter(yaml.safe_load(front) or {}, nodes)
    except yaml.YAMLError as exc:
        raise InvalidRequestError(_problem(exc)) from exc
    except InvalidRequestError:
        raise
    except (ValueError, OverflowError) as exc:  # a thirteenth month, a number of 5,000 digits
        reason = " ".join(str(exc).split())
        raise InvalidRequestError(f"the front matter has a value that YAML cannot read: {reason}; quote it") from exc


def _refuse_tricks(events: Iterable[yaml.Event]) -> None:
    """Nothing that grows when it is read, or that means something else than it says."""
    import yaml

    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidRequestError("the front matter must not have YAML's & and *: write the value out, or quote it")
        if getattr(event, "tag", None):
            raise InvalidRequestError("the front matter must not have YAML's !tags: leave the tag out, or quote it")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > _MAX_EVENTS or depth > _MAX_DEPTH:
            raise InvalidRequestError("the front matter has too many values, or is nested too deeply; make it simpler")


def _problem(exc: yaml.YAMLError) -> str:
    mark, problem = getattr(exc, "problem_mark", None), getattr(exc, "problem", None)
    where = "" if mark is None else f" in line {mark.line + 2}"  # marks count from 0, and after the opening fence
    return f"the front matter is not YAML{where}: {' '.join(str(problem or exc).split())}"


def _pairs(node: yaml.Node | None, where: str) -> dict[str, yaml.Node]:
    import yaml

    if node is None or _is_null(node):
        return {}
    if not isinstance(node, yaml.MappingNode) or not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
        raise InvalidRequestError(f"{where} must be lines of 'name: value'")
    pairs: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if key.value in pairs:
            raise InvalidRequestError(f"{where} has {key.value!r:.100} twice; leave one out")
        pairs[key.value] = value
    return pairs


def _text(node: yaml.Node | None, where: str) -> str | None:
    import yaml

    if node is None or _is_null(node):
        return None
    if not isinstance(node, yaml.ScalarNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        raise InvalidRequestError(f"{where} must be text, not a {kind}")
    return str(node.value)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"
