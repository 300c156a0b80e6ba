"""The Python API that a cell uses: load a model, chat, complete, embed, score, hold a conversation."""
