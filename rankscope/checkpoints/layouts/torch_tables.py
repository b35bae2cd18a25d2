"""The tensors in torch files whose entries are known by name, as trainers write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.pickles import Opaque
from rankscope.checkpoints.files.torch_file import open_torch, refuse_pieces
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.layouts.single_file import first_bytes
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.steps import LIMIT
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError, printable


def open_entries(path: Path, options: Options = DEFAULT) -> Mapping[str, Any]:
    """Entries of a torch file by name, opened lazily.

    Raises
    ------
    RankscopeError
        If the file is damaged, refused, or holds something else.
    """
    found = open_torch(path, trust=options.trust_pickle)
    if not isinstance(found, Mapping):
        raise RankscopeError("holds no entries with names, so no model's weights", path=path)
    return found


def tensors_under(
    entries: Mapping[str, Any], key: str, path: Path
) -> tuple[dict[str, StoredTensor], list[Skip]]:
    """Tensors of the entry ``key`` by name, and what numpy has no numbers for.

    Raises
    ------
    RankscopeError
        If there is no such entry, or no tensor in it.
    """
    held = entries.get(key)
    if not isinstance(held, Mapping):
        raise RankscopeError(f"has no weights under its key {key!r}", path=path)
    return named_tensors(held, path)


def named_tensors(
    entries: Mapping[str, Any], path: Path
) -> tuple[dict[str, StoredTensor], list[Skip]]:
    """Those of the entries that are tensors, and those that would be if numpy had their numbers.

    Raises
    ------
    RankscopeError
        If none is.
    """
    refuse_pieces(entries, path)
    tensors: dict[str, StoredTensor] = {}
    skips = []
    for name, held in entries.items():
        if isinstance(held, StoredTensor):
            tensors[str(name)] = held
        elif isinstance(held, Opaque) and held.name.startswith("torch."):
            message = f"is a {printable(held.name)}, which is no plain weight"
            skips.append(Skip(str(path), str(name), "unreadable", message))
    if not tensors and not skips:
        raise RankscopeError("holds no tensors where its layout has them", path=path)
    return tensors, skips


def table_of(value: Any) -> dict[str, Any]:
    """Entries of a dict, or attributes of an object such as argparse's; of others none."""
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    return dict(getattr(value, "__dict__", {}))


def has_entries(path: Path, *keys: str) -> bool:
    """Whether a torch file has these entries.

    One that is refused, or cut short, counts as one that has them: whoever reads it is told why,
    while a file that is not recognised would be missing from its series without a word.
    """
    try:
        found = open_torch(path)
    except RankscopeError as error:
        return error.reason == "unsafe-pickle" or first_bytes(path, 2)[0] == b"PK"
    return isinstance(found, Mapping) and all(key in found for key in keys)


def step_under(path: Path, *keys: str) -> Step | None:
    """Step that a torch file states under the first of these keys that it has, and the key."""
    try:
        found = open_entries(path)
    except RankscopeError:
        return None  # its name may tell; reading it says what is wrong with it
    for key in keys:
        step = found.get(key)
        if type(step) is int and 0 <= step < LIMIT:
            return step, key
    return None
