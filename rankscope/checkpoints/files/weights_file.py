"""Opens a file of weights of any format: its tensors, its other entries, or why it is not read.

The content of a file decides its format, not its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.file_names import is_called_weights
from rankscope.checkpoints.files.key_words import are_of_model
from rankscope.checkpoints.files.kinds import (
    PICKLES,
    REFUSALS,
    TORCH,
    ZIP,
    Kind,
    is_safetensors,
    kind_of,
)
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.files.opened_file import Opened, whole
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.saved_tables import lack_of_weights, sorted_tables
from rankscope.checkpoints.files.torch_file import open_agent, open_saved
from rankscope.checkpoints.files.training_state import without_training_state
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.steps import LIMIT
from rankscope.checkpoints.tensors import Tensor, open_regular
from rankscope.errors import RankscopeError, printable


def open_file(path: Path, *, trust: bool = False) -> Opened:
    """All tensors of a safetensors or torch file, those of the model apart from the others.

    Parameters
    ----------
    trust
        Whether a pickle may make objects of any class; see `Options`.

    Raises
    ------
    RankscopeError
        If the file is damaged, or is a torch file without tensors under names.
    """
    if is_safetensors(path):
        kept, states = without_training_state(open_tensors(path))
        return Opened(kept, tuple(states))
    return sorted_tables(open_saved(path, trust=trust))


def open_weights_file(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """The tensors of the model alone, by name; otherwise as `open_file`."""
    return dict(open_file(path, trust=trust).tensors)


def open_table(path: Path, options: Options = DEFAULT, *, key: str | None = None) -> Opened:
    """All tensors of a torch file, those of the model being under a key, or wherever they are.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused, or holds nothing under the key, or no whole weights.
    """
    return whole(sorted_tables(open_saved(path, trust=options.trust_pickle), key=key), str(path))


def open_entries(path: Path, options: Options = DEFAULT) -> Mapping[str, Any]:
    """Entries of a torch file by name, opened lazily.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused, or holds something other than a dict.
    """
    saved = open_saved(path, trust=options.trust_pickle).content
    if not isinstance(saved, Mapping):
        message = "has no entries with names, so no weights of a model"
        raise RankscopeError(message, path=path, reason="no-state-dict")
    return saved


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
        Whether a zip that is cut short counts as having them. Whoever reads it learns what is
        wrong, while a file that is not recognised would be missing from its series without a word.
    """
    try:
        saved = open_saved(path).content
    except RankscopeError as error:
        return or_cut and (error.reason == "unsafe-pickle" or _is_zip(path))
    return isinstance(saved, Mapping) and all(key in saved for key in keys)


def _is_zip(path: Path) -> bool:
    try:
        with open_regular(path) as (file, _):
            return file.read(2) == ZIP[:2]
    except (RankscopeError, OSError):
        return False


def step_under(path: Path, *keys: str) -> tuple[int, str] | None:
    """Step that a torch file states under the first of these keys that it has, and the key."""
    try:
        entries = open_entries(path)
    except RankscopeError:
        return None  # its name may state the step; reading it shows what is wrong with it
    for key in keys:
        step = entries.get(key)
        if type(step) is int and 0 <= step < LIMIT:
            return step, key
    return None


def refusal(path: Path) -> str:
    """Why a file that looks like a checkpoint is not read as one.

    Because of its kind; or because it holds no weights but the state of an optimizer, a log or
    data. Empty for a file that is read, and for one that nobody would take for weights.
    """
    kind = kind_of(path)
    if kind == "npz":
        return _lack_in_archive(path)
    if kind in TORCH:
        return _lack_in_object(path, kind)
    if kind in ("pickle", "tar", "gzip") and path.suffix.lower() not in PICKLES:
        return REFUSALS[kind] if is_called_weights(path) else ""
    return REFUSALS.get(kind, "")


def _lack_in_archive(path: Path) -> str:
    try:
        arrays, skips = open_arrays(path)
    except RankscopeError as error:
        return error.message
    names = [*arrays, *(skip.tensor for skip in skips)]
    if are_of_model(names, path.stem):
        return ""
    shown = printable(", ".join(names), limit=80)
    return f"has arrays without names of parameters ({shown}): taken for a log or for data"


def _lack_in_object(path: Path, kind: Kind) -> str:
    try:
        return lack_of_weights((open_agent if kind == "agent" else open_saved)(path))
    except RankscopeError as error:
        return error.message
