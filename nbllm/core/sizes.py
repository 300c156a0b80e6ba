"""Sizes of files as a person reads them."""

from __future__ import annotations


def size_text(num_bytes: int) -> str:
    """In decimal units, as shops and file managers give them: "98 MB", "1.2 GB"."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
