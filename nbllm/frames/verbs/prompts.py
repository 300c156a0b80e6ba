"""`prompts`: what `map` would ask, and how long it is; nothing is generated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nbllm.core import ChoiceRequest, EmbedRequest, GenerateRequest
from nbllm.errors import NbllmError, UnsupportedError
from nbllm.frames.dtypes import typed
from nbllm.frames.landing import of_row
from nbllm.frames.using import model_of
from nbllm.frames.verbs.computed import row_name, rows_to_ask
from nbllm.frames.verbs.mapping import planned
from nbllm.frames.verbs.plan import Plan
from nbllm.frames.verbs.settings import Settings
from nbllm.frames.verbs.source import Source
from nbllm.session.model import Model

if TYPE_CHECKING:
    import pandas as pd

_DTYPES = {"prompt": "str", "input_tokens": "Int64", "prompt_error": "str"}


class _Line(NamedTuple):
    prompt: str | None = None
    input_tokens: int | None = None
    prompt_error: str | None = None


def prompts(source: Source, prompt: str, **options: Any) -> pd.DataFrame:
    plan, settings = planned(source, prompt, "response", options)
    table = typed(list(_lines(source, plan, settings)), _DTYPES, source.frame.index)
    return table if table["prompt_error"].notna().any() else table.drop(columns="prompt_error")


def _lines(source: Source, plan: Plan, settings: Settings) -> Iterator[_Line]:
    asked, present = rows_to_ask(source, plan, settings.run)
    model = model_of(settings.model) if present.any() else None
    rows = zip(present, *(asked[name] for name in plan.uses), strict=True)
    for place, (is_present, *values) in enumerate(rows):
        if model is None or not is_present:
            yield _Line()
            continue
        try:
            (request,) = plan.requests(dict(zip(plan.uses, values, strict=True)))
            yield _rendered(model, request)
        except NbllmError as error:
            if settings.run.on_error == "raise":
                raise of_row(row_name(asked.index, place), error) from error.__cause__
            yield _Line(prompt_error=str(error))


def _rendered(model: Model, request: GenerateRequest | ChoiceRequest | EmbedRequest) -> _Line:
    if not isinstance(request, GenerateRequest):
        raise TypeError("only what generates text has a prompt")
    try:
        rendered = model.engine.render(request)
    except UnsupportedError:  # another server does not show its template, but what it would be sent is known
        turns = request.messages or ()
        return _Line("\n\n".join(f"{turn.role}: {turn.content}" for turn in turns))
    return _Line(rendered.text, len(rendered.tokens))
