"""Ollama's dialect of the server: from its requests to ours, and what is peculiar to it."""
