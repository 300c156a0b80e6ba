"""Getting models from the Hugging Face hub. Nothing here uses the network before somebody has asked for a model.

names.py        what a person writes -> repository, file, quantization
short_names.py  the shipped table of well-known models
choice.py       the files of a repository -> those of one model, by this machine's memory
hub.py          what is asked of the hub, through huggingface_hub, and its errors in one line
download.py     files that arrive whole, checked, at once; cut ones go on where they were
lock.py         one pull of a repository at a time
pull.py         all of it
typed.py        the same for a person, with a bar
"""

from __future__ import annotations

from nbllm.store.pulling.errors import PullError
from nbllm.store.pulling.progress import OnProgress, PullProgress
from nbllm.store.pulling.pull import pull, pulled_path
from nbllm.store.pulling.short_names import ShortName, fitting

__all__ = ["OnProgress", "PullError", "PullProgress", "ShortName", "fitting", "pull", "pulled_path"]
