"""A file of named tensors, whichever of the two formats of Hugging Face it has."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError


def open_weights_file(path: Path, *, trust: bool = False) -> dict[str, StoredTensor]:
    """List the tensors of a ``.safetensors`` file, or of a file of torch: any other name.

    Parameters
    ----------
    trust
        Whether a pickle may make objects of any class; see `Options`.

    Raises
    ------
    RankscopeError
        If the file is damaged, or a file of torch holds no tensors under names.
    """
    if path.suffix == ".safetensors":
        return open_tensors(path)
    # Here, since most folders have no such file.
    from rankscope.checkpoints.files.torch_file import largest_table, open_torch, refuse_pieces

    opened = open_torch(path, trust=trust)
    key, table = largest_table(opened)
    refuse_pieces(opened[key] if key else opened, path)
    found = {name: entry for name, entry in table.items() if isinstance(entry, StoredTensor)}
    if not found:
        raise RankscopeError("holds no tensors under names", path=path)
    return found
