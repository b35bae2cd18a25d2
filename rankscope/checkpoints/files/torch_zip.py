"""The format of torch since 1.6: a zip of the pickled object and the elements of each storage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.pickles import MAX_BYTES, read_object
from rankscope.checkpoints.files.torch_script import CONSTANTS, read_script, storages_of
from rankscope.checkpoints.files.torch_tensors import NAMES
from rankscope.checkpoints.files.zip_file import FilePart, entry_bytes, zip_entries
from rankscope.errors import RankscopeError


def read_zip(path: Path, part: FilePart, *, trust: bool) -> tuple[Any, tuple[str, ...]]:
    """Read the object, whose tensors have no names yet, and the unknown names in it.

    Raises
    ------
    RankscopeError
        If it is damaged, compressed, big-endian or no file of ``torch.save``.
    """
    entries = zip_entries(part, path)
    roots = [name.partition("/")[0] for name in entries if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        raise RankscopeError("is a zip without a data.pkl, so not of torch", path=path)
    root = roots[0]
    order = entries.get(f"{root}/byteorder")
    if order is not None and entry_bytes(part, order, path, limit=16) != b"little":
        raise RankscopeError("holds numbers in big-endian order", path=path)
    if f"{root}/{CONSTANTS}" in entries:
        return read_script(path, part, entries, root)
    storage = storages_of(path, part, entries, f"{root}/data")
    program = entry_bytes(part, entries[f"{root}/data.pkl"], path, limit=MAX_BYTES)
    return read_object(io.BytesIO(program), NAMES, path=path, persistent=storage, trust=trust)
