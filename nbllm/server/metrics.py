"""Counters for Prometheus, in the registry that Jupyter's own `/metrics` gives out."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("nbllm_requests", "Requests under /v1 that were answered", ["route", "status"])
PROMPT_TOKENS = Counter("nbllm_prompt_tokens", "Tokens of prompts", ["model"])
CACHED_TOKENS = Counter("nbllm_cached_tokens", "Tokens of prompts that were not evaluated again", ["model"])
COMPLETION_TOKENS = Counter("nbllm_completion_tokens", "Generated tokens", ["model"])
IN_FLIGHT = Gauge("nbllm_requests_in_flight", "Requests under /v1 that are being answered")
LOADED = Gauge("nbllm_models_loaded", "Models that runners of this server hold")
FIRST_TOKEN_S = Histogram(
    "nbllm_time_to_first_token_seconds",
    "From the arrival of a request that streams to its first token",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
DURATION_S = Histogram(
    "nbllm_request_duration_seconds",
    "From a request's arrival to the end of its answer",
    ["route"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
)
