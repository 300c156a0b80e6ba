"""OpenAI's API under `/v1`: requests to core values, chunks to answers."""
