"""What pull and create answer: lines of what is going on, of which the last is `{"status": "success"}`.

{"status": "pulling manifest"}
{"status": "pulling 6a0746a1ec1a", "digest": "sha256:6a07...", "total": 4661211808, "completed": 1048576}
{"status": "verifying sha256 digest"}
{"status": "success"}
"""

from __future__ import annotations

from typing import Any

SUCCESS = "success"
_SHORT = 12
"""Digits of a digest by which clients tell the bars of several files apart."""


def status_body(status: str) -> dict[str, Any]:
    return {"status": status}


def download_body(sha256: str, *, total: int, completed: int) -> dict[str, Any]:
    """How far the download of a file is."""
    digest = f"sha256:{sha256}"
    return {"status": f"pulling {sha256[:_SHORT]}", "digest": digest, "total": total, "completed": completed}
