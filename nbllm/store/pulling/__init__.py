"""Getting models from the Hugging Face hub and from Ollama's registry.

Nothing here uses the network before somebody has asked for a model.

pull.py            a name, and then either of the two
hub.py             what is asked of the hub, through huggingface_hub, and its errors in one line
registry_names.py  what a person writes for a model of the registry
registry.py        what is asked of the registry, and its errors in one line
manifest.py        what it says of a model
recipe.py          its small layers as a preset
usable.py          whether llama.cpp can load its file
architectures.py   those that llama.cpp has
from_registry.py   a whole pull from the registry
ranges.py          bytes of a file by ranges
download.py        files that arrive whole, checked, at once; cut ones go on where they were
lock.py            one pull of a repository or a blob at a time
typed.py           all of it for a person, with a bar
"""

from __future__ import annotations

from nbllm.store.pulling.progress import OnProgress, PullProgress
from nbllm.store.pulling.pull import pull
from nbllm.store.remote.errors import PullError
from nbllm.store.remote.short_names import ShortName, fitting

__all__ = ["OnProgress", "PullError", "PullProgress", "ShortName", "fitting", "pull"]
