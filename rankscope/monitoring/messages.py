"""What a monitor tells its recorder, and what the recorder answers.

Loads nothing but the standard library, so that the recorder can be started before anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rankscope.analysis.plan import Selection
    from rankscope.checkpoints.contents import Skip
    from rankscope.components.component import Component


@dataclass(frozen=True)
class Opening:
    """The first message: where to record what.

    Attributes
    ----------
    folder
        The folder of the copies, which the recorder removes at the end.
    device
        A torch device that decomposes; None for the processor.
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
    device: str | None = None
    to: str | None = None
    columns: tuple[str, ...] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measure:
    """Matrices of a group as they were at a step.

    Attributes
    ----------
    keep
        Copies that last: from, to.
    release
        Copies that nothing needs after this.
    nbytes
        Size of what was copied, which the answer gives back.
    """

    step: int
    components: tuple[Component, ...]
    nbytes: int
    keep: tuple[tuple[str, str], ...] = ()
    release: tuple[str, ...] = ()


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
    """The training goes on from before this step: what is recorded from it on is replaced."""

    step: int


@dataclass(frozen=True)
class Restarted:
    """Adapters were merged and begun anew after this step.

    Attributes
    ----------
    names
        Of the matrices that have them.
    """

    step: int
    names: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Said:
    """Something that was skipped, or is worth a note."""

    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class Closing:
    """Nothing follows: measure what is there, write everything and end."""


Message: TypeAlias = "Opening | Measure | EndOfStep | Anew | Restarted | Said | Closing"


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
    """

    nbytes: int = 0
    seconds: float = 0.0
    warning: str = ""
