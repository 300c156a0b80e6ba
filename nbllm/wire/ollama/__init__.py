"""Ollama's API under `/api`: its requests as types, and chunks and models as its answers."""
