"""What other programs on this machine hold, only ever read.

look.py         folders and their GGUF files, and which links may be followed
ollama.py       manifests that name blobs
huggingface.py  snapshots whose files are links to blobs
lmstudio.py     publisher/repository/file
gpt4all.py      one folder of files
memory.py       what a model may take, where a name leaves the quantization open
stores.py       all of them, as far as the settings want them

What is damaged is told, never raised. What is not there or cannot be read is not there.
"""

from __future__ import annotations

from nbllm.store.foreign.memory import total_memory
from nbllm.store.foreign.stores import PREFIXES, cached_model, prefixed, store_models

__all__ = ["PREFIXES", "cached_model", "prefixed", "store_models", "total_memory"]
