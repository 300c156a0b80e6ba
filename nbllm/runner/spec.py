"""Which model a runner loads, and how."""

from __future__ import annotations

from pathlib import Path

import msgspec


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `engine.load.load_engine` takes, with its defaults; it checks the values."""

    context_length: int | None = None
    max_sequences: int = 8
    kv_tokens: int | None = None
    kv_type: str | None = None
    gpu_layers: int = -1
    threads: int | None = None
    use_mmap: bool = True
    swa_full: bool = True
    flash_attention: bool | None = None
    max_batch: int = 256


Key = tuple[Path, tuple[int, ...], LoadOptions]


class RunnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A runner that is wanted.

    Attributes:
        path: of the GGUF, absolute: a runner's working folder is not the asker's.
        name: what the model is called in messages and lists.
        folder: for records and sockets.
        file_hash: as `store.model_hash` gives it; the runner computes it where this is "".
        stamp: what changes when the file is replaced, so that the old weights do not answer for the new ones.
    """

    path: Path
    name: str
    folder: Path
    options: LoadOptions = LoadOptions()
    file_hash: str = ""
    stamp: tuple[int, ...] = ()

    @property
    def key(self) -> Key:
        """Specs of an equal key are served by one runner, whatever they call the model."""
        return self.path, self.stamp, self.options
