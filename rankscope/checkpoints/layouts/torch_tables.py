"""The tensors in torch files whose entries are known by name, as trainers write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.opened_file import Opened
from rankscope.checkpoints.files.saved_tables import sorted_tables
from rankscope.checkpoints.files.torch_file import open_saved
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.layouts.single_file import first_bytes
from rankscope.checkpoints.layouts.whole_weights import whole
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.steps import LIMIT
from rankscope.errors import RankscopeError


def open_table(path: Path, options: Options = DEFAULT, *, key: str | None = None) -> Opened:
    """All tensors of a torch file, sorted; those of the model under a key, or wherever they are.

    Raises
    ------
    RankscopeError
        If the file is damaged, refused, holds nothing under the key, or weights that are not whole.
    """
    return whole(sorted_tables(open_saved(path, trust=options.trust_pickle), key=key), str(path))


def open_entries(path: Path, options: Options = DEFAULT) -> Mapping[str, Any]:
    """Entries of a torch file by name, opened lazily.

    Raises
    ------
    RankscopeError
        If the file is damaged, refused, or holds something else.
    """
    found = open_saved(path, trust=options.trust_pickle).found
    if not isinstance(found, Mapping):
        raise RankscopeError("holds no entries with names, so no model's weights", path=path)
    return found


def table_of(value: Any) -> dict[str, Any]:
    """Entries of a dict, or attributes of an object such as argparse's; of others none."""
    if isinstance(value, Mapping):
        return {str(key): entry for key, entry in value.items()}
    return dict(getattr(value, "__dict__", {}))


def has_entries(path: Path, *keys: str, or_cut: bool = True) -> bool:
    """Whether a torch file has these entries.

    Parameters
    ----------
    or_cut
        Count a zip that is cut short as one that has them: whoever reads it is told why, while a
        file that is not recognised would be missing from its series without a word.
    """
    try:
        found = open_saved(path).found
    except RankscopeError as error:
        is_refused = error.reason == "unsafe-pickle" or first_bytes(path, 2)[0] == b"PK"
        return or_cut and is_refused
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
