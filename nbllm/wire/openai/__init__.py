"""OpenAI's API under `/v1`: requests to core values, chunks to answers."""

from __future__ import annotations

from nbllm.wire.openai.chat import ChatCall, parse_chat
from nbllm.wire.openai.chat_answer import ChatAnswer, ChatStream
from nbllm.wire.openai.completion_answer import CompletionAnswer, CompletionStream
from nbllm.wire.openai.completions import CompletionCall, parse_completion
from nbllm.wire.openai.embeddings import EmbedCall, embeddings_body, parse_embeddings
from nbllm.wire.openai.errors import error_body, error_event
from nbllm.wire.openai.head import chat_id, completion_id
from nbllm.wire.openai.listing import model_body, models_body
from nbllm.wire.openai.shapes import json_schema
from nbllm.wire.openai.tokens import (
    DetokenizeCall,
    TokenizeCall,
    detokenize_body,
    input_tokens_body,
    parse_detokenize,
    parse_input_tokens,
    parse_tokenize,
    tokenize_body,
)

__all__ = [
    "ChatAnswer",
    "ChatCall",
    "ChatStream",
    "CompletionAnswer",
    "CompletionCall",
    "CompletionStream",
    "DetokenizeCall",
    "EmbedCall",
    "TokenizeCall",
    "chat_id",
    "completion_id",
    "detokenize_body",
    "embeddings_body",
    "error_body",
    "error_event",
    "input_tokens_body",
    "json_schema",
    "model_body",
    "models_body",
    "parse_chat",
    "parse_completion",
    "parse_detokenize",
    "parse_embeddings",
    "parse_input_tokens",
    "parse_tokenize",
    "tokenize_body",
]
