"""Agents of Stable-Baselines3: a zip with ``policy.pth``, optimizers and settings in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.torch_file import Saved, open_saved_at
from rankscope.checkpoints.files.zip_file import FilePart, stored_start, zip_entries
from rankscope.checkpoints.tensors import StoredTensor, open_regular
from rankscope.errors import RankscopeError

POLICY, SUFFIX = "policy", ".pth"


def open_agent(path: Path, *, trust: bool = False) -> Saved:
    """Open the torch files in an agent's zip: one table, under the names of the files.

    Raises
    ------
    RankscopeError
        If the zip or a file in it is damaged, or a file is compressed.
    """
    with open_regular(path) as (file, size):
        part = FilePart(file, 0, size)
        entries = zip_entries(part, path)
        places = {
            name.removesuffix(SUFFIX): (stored_start(part, info, path), info.file_size)
            for name, info in entries.items()
            if name.endswith(SUFFIX) and "/" not in name
        }
    if POLICY not in places:
        raise RankscopeError(f"is a zip without {POLICY}{SUFFIX}, so not of an agent", path=path)
    held = {
        name: open_saved_at(path, start, length, trust=trust)
        for name, (start, length) in places.items()
    }
    closed = tuple(dict.fromkeys(name for one in held.values() for name in one.closed))
    return Saved(path, {name: _named(one.found, name) for name, one in held.items()}, closed)


def _named(found: Any, name: str) -> Any:
    """A tensor by itself has the name of its file."""
    return replace(found, name=name) if isinstance(found, StoredTensor) else found
