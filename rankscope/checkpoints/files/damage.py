"""What stands in the place of weights that are not there: pointers, web pages, cut and empty files.

Each has a reason code of its own, so that a step whose file is such a one keeps its place in a
series with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rankscope.errors import RankscopeError

Damage = Literal["empty", "lfs-pointer", "web-page"]
LOOK = 512  # bytes from the start of a file that tell what it is
POINTER = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
WORDS: dict[Damage, str] = {
    "empty": "is empty, not a {kind} file",
    "lfs-pointer": "is a git-lfs pointer, not the weights: run `git lfs pull`",
    "web-page": "is a web page, not a {kind} file: download it again",
}


def damage(start: bytes, size: int) -> Damage | None:
    """Reason code of what is not weights at all, by its first bytes; None for anything else."""
    if size == 0:
        return "empty"
    if start.startswith(POINTER):
        return "lfs-pointer"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(PAGES):
        return "web-page"
    return None


def not_weights(start: bytes, size: int, path: str | Path, *, kind: str) -> RankscopeError:
    """The error of a file that is to be of a kind, and is not.

    Parameters
    ----------
    start, size
        Its first bytes, and the number of all.
    kind
        What it was to be: torch, safetensors.
    """
    reason = damage(start, size)
    if reason:
        return RankscopeError(WORDS[reason].format(kind=kind), path=path, reason=reason)
    message = f"is cut short or not a {kind} file ({size} bytes)"
    return RankscopeError(message, path=path, reason="cut-short")
