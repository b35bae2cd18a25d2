"""What a user says about how to read checkpoints: the contract of all layouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.families.family import Family


@dataclass(frozen=True)
class Options:
    """How to read checkpoints.

    Attributes
    ----------
    layout
        Name of the on-disk layout; None to recognise it.
    family
        Family of the model; None to recognise it.
    trust_pickle
        Whether a pickle may run code of this machine's packages to make objects that are not
        tensors. Whoever wrote the file decides what runs.
    base
        Folder of the model that adapters were put on; None to look where their configs say.
    within
        Folder that links in a checkpoint may lead to; None if they may lead anywhere.
    """

    layout: str | None = None
    family: Family | None = None
    trust_pickle: bool = False
    base: Path | None = None
    within: Path | None = None


DEFAULT = Options()
