"""Messages from a monitor to its recorder, and the answers.

Loads nothing but the standard library, so that the recorder can be started before anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rankscope.analysis.request import Selection
    from rankscope.checkpoints.contents import Contents
    from rankscope.monitoring.matrix_groups import Group, Places


@dataclass(frozen=True)
class Opening:
    """The first message: where to record what.

    Attributes
    ----------
    folder
        The folder of the copies, which the recorder removes at the end.
    cosines
        Whether updates also have the cosine with the update before.
    device
        A torch device that decomposes; None for the processor.
    nice
        How far the recorder steps back behind other processes.
    to, columns
        Where scalars are mirrored, as for `rankscope watch`.
    about
        Settings, for the record.
    """

    out: str
    run: str
    unit: str
    folder: str
    selection: Selection
    cosines: bool = False
    device: str | None = None
    nice: int = 0
    to: str | None = None
    columns: tuple[str, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelPlan:
    """What the model holds, and what of it is copied together."""

    contents: Contents
    groups: Mapping[tuple[str, ...], Group]


@dataclass(frozen=True)
class Copy:
    """A group of the last plan as it was at a step.

    Attributes
    ----------
    nbytes
        Size of the copy, which the answer gives back.
    """

    step: int
    group: tuple[str, ...]
    places: Places
    nbytes: int


@dataclass(frozen=True)
class EndOfStep:
    """Everything that was copied at a step has been sent.

    Attributes
    ----------
    taken, of
        How many matrices, of how many.
    cost
        What the training has waited so far, and out of how long, in seconds.
    """

    step: int
    taken: int
    of: int
    cost: tuple[float, float]


@dataclass(frozen=True)
class Anew:
    """The training resumed before this step: records from this step on are replaced."""

    step: int


@dataclass(frozen=True)
class Restarted:
    """Adapters were merged and begun anew after this step; `Monitor.restarted` says how."""

    step: int
    in_float64: bool


@dataclass(frozen=True)
class Closing:
    """Nothing follows: measure what is there, write everything and end."""


Message: TypeAlias = "Opening | ModelPlan | Copy | EndOfStep | Anew | Restarted | Closing"


@dataclass(frozen=True)
class Answer:
    """What a recorder has done.

    Attributes
    ----------
    nbytes
        Size of copies that wait no longer.
    seconds
        Processor time of the recorder so far.
    warning
        Something to warn of; empty if there is nothing.
    is_refused
        Whether it cannot write into the results folder, so that another recorder could not either.
    """

    nbytes: int = 0
    seconds: float = 0.0
    warning: str = ""
    is_refused: bool = False
