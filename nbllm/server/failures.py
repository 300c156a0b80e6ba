"""From errors to HTTP: which status and code each kind has, what it means, and what helps.

The table is what a client's author reads: README.md holds it, made by `markdown_table`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nbllm import errors
from nbllm.runner.errors import BusyError, LoadCrashError, RunnerBackoffError


@dataclass(frozen=True, slots=True)
class Failure:
    """One kind of failure. `retry_after_s` is for the header of that name; None has none."""

    status: int
    code: str | None
    meaning: str
    remedy: str
    retry_after_s: float | None = None


_BY_ERROR: dict[type[BaseException], Failure] = {
    errors.ContextOverflowError: Failure(
        400,
        "context_length_exceeded",
        "the prompt has more tokens than the context",
        "shorten it: both counts are told",
    ),
    errors.ConstraintError: Failure(
        400, "invalid_constraint", "a schema, regex, choice list or grammar is not supported", "simplify it"
    ),
    errors.TemplateError: Failure(
        400, "invalid_template", "the model's chat template refuses the messages", "change roles or their order"
    ),
    errors.UnsupportedError: Failure(400, "unsupported", "this model or engine lacks the feature", "leave it out"),
    errors.ParameterError: Failure(
        400, None, "a field is missing, of a wrong type or out of range", "correct the field that `param` names"
    ),
    errors.InvalidRequestError: Failure(400, None, "the request cannot be done", "correct it as the message says"),
    errors.ModelNotFoundError: Failure(
        404, "model_not_found", "no model of that name", "take a name from GET /v1/models; close ones are told"
    ),
    errors.ModelLoadError: Failure(
        404, "model_not_found", "the model's file is damaged or of an unknown kind", "replace the file"
    ),
    LoadCrashError: Failure(
        503, "model_unavailable", "the model's process ended while it loaded", "see the message; ask again", 5.0
    ),
    RunnerBackoffError: Failure(
        503, "model_unavailable", "the model's process failed a moment ago", "ask again after Retry-After", 1.0
    ),
    BusyError: Failure(
        503,
        "model_unavailable",
        "all loaded models are in use, or the model was not loaded in time",
        "ask again after Retry-After",
        1.0,
    ),
    errors.InsufficientMemoryError: Failure(
        503,
        "model_unavailable",
        "the model does not fit into the free memory",
        "unload another, or take a smaller one",
        30,
    ),
    errors.ModelError: Failure(
        503, "model_unavailable", "another server's model cannot be used", "see the message", 30
    ),
    errors.EngineError: Failure(
        503,
        "engine_failed",
        "the process that ran the model ended, or could not be started in time",
        "send the request again",
        1.0,
    ),
}
_BY_STATUS = (
    Failure(401, "invalid_api_key", "no key, or a wrong, expired or revoked one", "send Authorization: Bearer KEY"),
    Failure(403, "insufficient_scope", "the key may not do this", "make a key with the scope that is named"),
    Failure(403, "model_not_allowed", "the key is not for this model", "take one that GET /v1/models lists for it"),
    Failure(
        403,
        "host_not_allowed",
        "without a key, the server has only this machine's names",
        "use localhost, or send a key",
    ),
    Failure(
        403,
        "origin_not_allowed",
        "without a key, pages of this origin may not ask",
        "see `allow_origins`, or send a key",
    ),
    Failure(404, None, "no such path", "take one of those that the message lists"),
    Failure(405, "method_not_allowed", "the path is there, for another method", "see the header Allow"),
    Failure(413, "body_too_large", "the body is too large", "send less at once"),
    Failure(415, "unsupported_media_type", "the body is not said to be JSON", "send Content-Type: application/json"),
    Failure(
        429,
        "rate_limit_exceeded",
        "the queue, or what a key may do at once, is full; or too many wrong keys came from there",
        "ask again after Retry-After",
    ),
    Failure(
        503, "keys_unavailable", "the file of the keys cannot be read", "the server's log says how to repair it", 30
    ),
)


def failure_of(error: BaseException) -> Failure | None:
    """What HTTP is told of an error; None for one that nobody foresaw."""
    for kind in type(error).__mro__:
        if kind in _BY_ERROR:
            return _BY_ERROR[kind]
    return None


def markdown_table() -> str:
    """Status, code, meaning and remedy of everything that can go wrong, for README.md."""
    rows = sorted([*_BY_ERROR.values(), *_BY_STATUS], key=lambda failure: (failure.status, failure.code or ""))
    lines = ["| Status | `code` | What it means | What helps |", "|---|---|---|---|"]
    for row in rows:
        code = f"`{row.code}`" if row.code else "null"
        lines.append(f"| {row.status} | {code} | {row.meaning} | {row.remedy} |")
    return "\n".join(dict.fromkeys(lines))
