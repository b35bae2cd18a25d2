"""`Survey`: what was found in some folders, runs and everything else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run

Use = Literal["step", "part", "left out", "unreadable"]


@dataclass(frozen=True)
class Place:
    """What became of one folder or file."""

    path: Path
    use: Use
    run: str = ""
    step: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """Everything that was found: runs, and what became of every folder and file.

    Attributes
    ----------
    skips
        What is missing from the runs, and why.
    notes
        What is worth a line although nothing is missing.
    """

    runs: tuple[Run, ...]
    places: tuple[Place, ...]
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
