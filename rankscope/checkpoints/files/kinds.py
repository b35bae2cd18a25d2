"""What a file is by its content, and words for kinds that are not read."""

from __future__ import annotations

from pathlib import Path


def refusal(path: Path) -> str:
    """Words for a file that looks like a checkpoint and is not read; empty for others."""
    return ""
