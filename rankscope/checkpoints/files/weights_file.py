"""A file of named tensors, whichever format it has: its content decides, not its name."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.files.kinds import is_safetensors
from rankscope.checkpoints.files.opened_file import Opened
from rankscope.checkpoints.files.optimizer_state import without_training_state
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor


def open_weights_file(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """The tensors of a model in a safetensors file or a file of torch, by name.

    What else the file holds is in `open_file`.

    Parameters
    ----------
    trust
        Whether a pickle may make objects of any class; see `Options`.

    Raises
    ------
    RankscopeError
        If the file is damaged, or a file of torch holds no tensors under names.
    """
    return dict(open_file(path, trust=trust).tensors)


def open_file(path: Path, *, trust: bool = False) -> Opened:
    """All tensors of a file, sorted into those of the model and the others; as above."""
    if is_safetensors(path):
        kept, states = without_training_state(open_tensors(path))
        return Opened(kept, tuple(states))
    # Here, since most folders have no such file.
    from rankscope.checkpoints.files.saved_tables import sorted_tables
    from rankscope.checkpoints.files.torch_file import open_saved

    return sorted_tables(open_saved(path, trust=trust))
