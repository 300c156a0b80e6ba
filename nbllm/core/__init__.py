"""The values that pass between the rooms: pure, frozen, and free of any platform.

A surface makes a request, an engine answers it with chunks. Nothing here knows Jupyter, llama.cpp or a file format.
"""

from __future__ import annotations

from nbllm.core.adapters import Adapter
from nbllm.core.chunks import Chunk, FinishReason, Timings, TokenLogprob, ToolCallDelta, Usage
from nbllm.core.descriptions import EngineInfo, ModelInfo, RenderedPrompt
from nbllm.core.messages import ROLES, Message, Role, ToolCall
from nbllm.core.presets import Preset, applied
from nbllm.core.requests import (
    ChoiceRequest,
    Constraint,
    EmbedRequest,
    GenerateRequest,
    Priority,
    Request,
    ScoreRequest,
    Tool,
)
from nbllm.core.sampling import RANGES, SamplingParams, unknown_option
from nbllm.core.steps import Row, StepStatus

__all__ = [
    "RANGES",
    "ROLES",
    "Adapter",
    "ChoiceRequest",
    "Chunk",
    "Constraint",
    "EmbedRequest",
    "EngineInfo",
    "FinishReason",
    "GenerateRequest",
    "Message",
    "ModelInfo",
    "Preset",
    "Priority",
    "RenderedPrompt",
    "Request",
    "Role",
    "Row",
    "SamplingParams",
    "ScoreRequest",
    "StepStatus",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "applied",
    "unknown_option",
]
