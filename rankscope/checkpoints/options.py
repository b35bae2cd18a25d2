"""What a user says about how checkpoints are to be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.families.family import Family


@dataclass(frozen=True)
class Options:
    """How to read.

    Attributes
    ----------
    layout
        Name of the on-disk layout; None to recognise it.
    family
        Family of the model; None to recognise it.
    trust_pickle
        Whether a pickle may run code of this machine's packages to make objects that are no
        tensors. Whoever wrote such a file decides what is run.
    base
        Folder of the model that adapters were put on; None to look where their configs say.
    """

    layout: str | None = None
    family: Family | None = None
    trust_pickle: bool = False
    base: Path | None = None


DEFAULT = Options()
