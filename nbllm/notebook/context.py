"""What stands in the notebook above a question: the last cells and what they put out, within a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nbllm.markup.characters import plain_text
from nbllm.markup.code import fence
from nbllm.markup.cuts import without_middle
from nbllm.notebook.failures import without_addresses

if TYPE_CHECKING:
    from nbllm.notebook.seen import Seen, SeenCell

_MAX_CHARS_PER_TOKEN = 8  # what is longer than this cannot fit, and is cut before anybody counts its tokens
_MAX_REDRAWN = 10  # how much longer a text may be that is printed over itself, as progress bars are
_MIN_PART_CHARS = 40
_NUM_ERROR_LINES = 5

Estimate = Callable[[str], int]


def recent_cells(shell: Any, seen: Seen, count: int, *, budget: int = 2000, estimate: Callable[[str], int]) -> str:
    """Markdown of the last `count` cells that ran before the running one, oldest first; "" if there are none.

    Questions to a model are passed over, and so are earlier runs of a cell that ran again.

    Args:
        budget: tokens by `estimate` for all of it; the newest cells get the most. Cells and outputs that are too
            long lose their middle and say so, and cells for which nothing is left are counted.
    """
    cells = _before_running(seen, count)
    if not cells:
        return ""
    parts, needs = _measured(shell, cells, budget, estimate)
    room = max(0, budget - estimate(_heading(len(cells), len(cells))) - len(parts))
    fitted = [part.fitted(tokens, estimate) for part, tokens in zip(parts, _shares(needs, room), strict=True)]
    texts = [text for text in reversed(fitted) if text]
    return "\n\n".join([_heading(len(texts), len(cells) - len(texts)), *texts]) if texts else ""


@dataclass(frozen=True, slots=True)
class _Part:
    """One cell, and what it put out."""

    count: int
    source: str
    output: str

    @classmethod
    def of(cls, cell: SeenCell, output: str, max_chars: int) -> _Part:
        source = plain_text(without_middle(cell.source.strip("\n"), max_chars))
        return cls(cell.count, source, without_middle(output, max_chars))

    def text(self, max_chars: int | None = None) -> str:
        source, output = self.source, self.output
        if max_chars is not None:
            half = max_chars // 2
            source = without_middle(source, max(half, max_chars - len(output)))
            output = without_middle(output, max(half, max_chars - len(source)))
        cell = f"In [{self.count}]:\n{fence(source.split(chr(10)), 'python')}"
        return cell if not output else f"{cell}\nIts output:\n{fence(output.split(chr(10)))}"

    def fitted(self, tokens: int, estimate: Estimate) -> str:
        """The text in at most so many tokens, "" if that is too little to say anything."""
        text = self.text()
        needed = estimate(text)
        chars = len(self.source) + len(self.output)
        while needed > tokens:
            chars = min(chars * 9 // 10, chars * tokens // needed)
            if chars < _MIN_PART_CHARS:
                return ""
            text = self.text(chars)
            needed = estimate(text)
        return text


def _before_running(seen: Seen, count: int) -> list[SeenCell]:
    """The newest first."""
    running = seen.running
    cells: list[SeenCell] = []
    ids: set[str] = set()
    for cell in reversed(seen.cells):
        if len(cells) >= count:
            break
        is_later = running is not None and running.count is not None and cell.count >= running.count
        if is_later or cell.is_ours or cell.cell_id in ids:
            continue
        cells.append(cell)
        if cell.cell_id is not None:
            ids.add(cell.cell_id)
    return cells


def _measured(shell: Any, cells: Sequence[SeenCell], budget: int, estimate: Estimate) -> tuple[list[_Part], list[int]]:
    """The cells that may get a share of the budget, and the tokens of each."""
    parts: list[_Part] = []
    needs: list[int] = []
    max_chars = budget * _MAX_CHARS_PER_TOKEN
    for cell in cells:
        parts.append(_Part.of(cell, _outputs(shell, cell, max_chars), max_chars))
        needs.append(estimate(parts[-1].text()))
        if len(parts) > budget.bit_length() and sum(needs) >= budget:
            break
    return parts, needs


def _shares(needs: Sequence[int], budget: int) -> list[int]:
    """Half of the budget for the first, half of the rest for the next and so on; what one leaves, the first use."""
    sure = [min(need, budget >> (rank + 1)) for rank, need in enumerate(needs)]
    rest = budget - sum(sure)
    shares = []
    for need, share in zip(needs, sure, strict=True):
        more = min(need - share, rest)
        rest -= more
        shares.append(share + more)
    return shares


def _outputs(shell: Any, cell: SeenCell, max_chars: int) -> str:
    """What the cell printed, its value, and the end of its error, as IPython's history has them."""
    manager = getattr(shell, "history_manager", None)
    # `get`, for to ask this defaultdict for a missing count makes an entry, on which IPython's own code trips
    kept = getattr(manager, "outputs", {}).get(cell.count, ())
    texts = [text for output in kept if (text := _text(output, max_chars))]
    if cell.failure:
        lines = [line for line in cell.failure.traceback.split("\n") if line.strip(" ~^")]
        texts.append("\n".join(lines[-_NUM_ERROR_LINES:]))
    elif not cell.was_ok:
        texts.append("(interrupted)")
    return without_addresses("\n".join(texts))


def _text(output: Any, max_chars: int) -> str:
    if output.output_type == "out_stream":
        printed = "".join(output.bundle.get("stream", ()))
        return _as_printed(without_middle(printed, max_chars * _MAX_REDRAWN))
    if output.output_type in ("execute_result", "display_data"):
        text = output.bundle.get("text/plain", "")
        return plain_text(without_middle(text if isinstance(text, str) else "".join(text), max_chars)).strip("\n")
    return ""


def _as_printed(text: str) -> str:
    """Without what a carriage return has overwritten: a progress bar is its last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    return plain_text("\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)).strip("\n")


def _heading(num_shown: int, num_left_out: int) -> str:
    shown = f"The last {num_shown} cells of the notebook" if num_shown != 1 else "The last cell of the notebook"
    more = f" ({num_left_out} more left out for length)" if num_left_out else ""
    return f"{shown}, oldest first{more}:" if num_shown != 1 else f"{shown}{more}:"
