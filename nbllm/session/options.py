"""The names of Model.chat's keyword options, apart from what sorts them: whoever only offers names starts sooner."""

from __future__ import annotations

from dataclasses import fields

from nbllm.core import SamplingParams

CONSTRAINTS = ("response_format", "regex", "choice", "grammar")
TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
OPTIONS = (
    *(spec.name for spec in fields(SamplingParams)),
    *CONSTRAINTS,
    *("system", "timeout", "reproducible", "cache_prompt", "template_options", "continue_final", "lora"),
    *TOOLS,
)
