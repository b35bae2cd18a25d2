"""The format of torch since 1.6: a zip of the pickled object and the elements of each storage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.pickles import MAX_BYTES, read_pickle
from rankscope.checkpoints.files.torch_tensors import NAMES, Storage, storage_identity
from rankscope.checkpoints.files.zip_file import FilePart, entry_bytes, stored_start, zip_entries
from rankscope.checkpoints.tensors import DTYPES
from rankscope.errors import RankscopeError, printable


def read_zip(path: Path, part: FilePart, *, trust: bool) -> Any:
    """Read the object; its tensors have no names yet.

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
    if f"{root}/constants.pkl" in entries:
        raise RankscopeError("is a TorchScript archive: save its state_dict instead", path=path)
    order = entries.get(f"{root}/byteorder")
    if order is not None and entry_bytes(part, order, path, limit=16) != b"little":
        raise RankscopeError("holds numbers in big-endian order", path=path)
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        kind, key, count = storage_identity(identity)
        if key not in storages:
            nbytes = count * DTYPES[kind.dtype][0]
            entry = entries.get(f"{root}/data/{key}")
            if entry is None or entry.file_size < nbytes:
                raise RankscopeError(f"lacks data of its storage {printable(key)}", path=path)
            start = part.start + stored_start(part, entry, path)
            storages[key] = Storage(str(path), kind.dtype, start, nbytes)
        return storages[key]

    program = entry_bytes(part, entries[f"{root}/data.pkl"], path, limit=MAX_BYTES)
    return read_pickle(io.BytesIO(program), NAMES, path=path, persistent=storage, trust=trust)
