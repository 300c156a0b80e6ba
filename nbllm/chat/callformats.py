"""How models write the calls that they want made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One family's form of a call.

    Attributes:
        opening: the text that begins calls.
        closing: what ends them, if anything.
        separator: what may stand before another call without an opening of its own.
        arguments: the key of the arguments in the call's JSON object.
        is_list: the calls stand in a JSON list.
        is_bare: a call may be the whole answer, without the opening.
        after_name: a call is its name, this text and the arguments, "" when it is an object of both.
    """

    opening: str
    closing: str = ""
    separator: str = ""
    arguments: str = "arguments"
    is_list: bool = False
    is_bare: bool = False
    after_name: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts that may be control tokens of a vocabulary."""
        return tuple(text for text in (self.opening, self.closing, self.after_name) if len(text) > 1)


HERMES = CallFormat("<tool_call>", "</tool_call>")
MISTRAL = CallFormat("[TOOL_CALLS]", "]", ",", is_list=True)
MISTRAL_NAMED = CallFormat("[TOOL_CALLS]", after_name="[ARGS]")
LLAMA = CallFormat("<|python_tag|>", "", ";", arguments="parameters", is_bare=True)


def format_of(template: str) -> CallFormat:
    """The form that a template with tools asks its model for, as far as its text tells."""
    if MISTRAL.opening in template:
        return MISTRAL_NAMED if MISTRAL_NAMED.after_name in template else MISTRAL
    if HERMES.opening not in template and (LLAMA.opening in template or '"parameters"' in template):
        return LLAMA
    return HERMES
