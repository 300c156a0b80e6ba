"""`%llm pull` and `jupyter nbllm pull`: a pull that somebody watches."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from nbllm.config import Config
from nbllm.core.sizes import size_text
from nbllm.store.pulling.progress import PullProgress
from nbllm.store.pulling.pull import pull
from nbllm.store.remote.short_names import fitting

if TYPE_CHECKING:
    from tqdm import tqdm


def pull_typed(name: str, *, config: Config, memory_bytes: int, file: IO[str]) -> str:
    """Pull with a bar for each file, and say what the model is called now.

    Args:
        memory_bytes: of the machine.
        file: what the bar is drawn on.

    Raises:
        KeyboardInterrupt: it was interrupted, and it was said what is kept. Others are those of `pull`.
    """
    bar = _Bar(file)
    try:
        path = pull(name, config=config, on_progress=bar.show, memory_bytes=memory_bytes)
    except KeyboardInterrupt:
        bar.say(bar.kept)
        raise
    finally:
        bar.close()
    return "\n".join([f"{bar.last.name} is here: {path}", *bar.last.notes])


def suggestions(config: Config, memory_bytes: int) -> str:
    """A table of what fits into the machine's memory, as text.

    Args:
        memory_bytes: of the machine, of which `config.memory_fraction` is planned with.
    """
    fits = fitting(int(memory_bytes * config.memory_fraction))
    if not fits:
        return f"no model of the table fits into the memory of this machine ({size_text(memory_bytes)})"
    rows = [("NAME", "SIZE", "LICENCE"), *((model.name, size_text(model.size_bytes), model.licence) for model in fits)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"These fit into the memory of this machine ({size_text(memory_bytes)}):"
    others = ["Any other GGUF of huggingface.co: hf:org/repo, or hf:org/repo:Q4_K_M"]
    if config.registry:
        others.append("Any other model of Ollama's registry: its name there, such as someone/model:7b")
    return "\n".join([head, "", *lines, "", *others])


class _Bar:
    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._bar: tqdm[Any] | None = None
        self._of = ""
        self.last = PullProgress(status="resolving")

    def show(self, progress: PullProgress) -> None:
        if progress.status != self.last.status and progress.status == "waiting":
            self.say("another pull of these files is under way: waiting for it")
        self.last = progress
        if progress.status != "downloading":
            return
        if self._bar is None or self._of != progress.file:
            self._open(progress)
        assert self._bar is not None
        self._bar.update(progress.done - self._bar.n)

    @property
    def kept(self) -> str:
        if self.last.status != "downloading":
            return "interrupted; pull again to go on"
        kept = f"{size_text(self.last.done)} of {size_text(self.last.total)} of {self.last.file} are kept"
        return f"interrupted; {kept}, and the next pull goes on from there"

    def say(self, line: str) -> None:
        self.close()
        self._file.write(f"{line}\n")
        self._file.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _open(self, progress: PullProgress) -> None:
        from tqdm import tqdm

        self.close()
        self._of = progress.file
        self._bar = tqdm(
            desc=progress.file,
            total=progress.total,
            initial=progress.done,
            file=self._file,
            unit="B",
            unit_scale=True,
            mininterval=0.25,
        )
