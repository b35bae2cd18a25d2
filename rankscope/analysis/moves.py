"""Which matrices left the band of PER in which they began, when, and until when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.analysis.measured_steps import NOTHING, PLACE, Indices, Matrices, MeasuredStep
from rankscope.results.summary_tables import WINDOWS
from rankscope.statistics.onset import Move, lasting_moves

FOLLOWED = "weight", "update", "adapter"
WHOLE = ("", "cycle")  # parts of cycles belong to different adapters
LEAST = 0.01  # a change of PER that is not worth a line


@dataclass(frozen=True)
class PerSeries:
    """The PER of one matrix, in order of the steps.

    Attributes
    ----------
    place
        Where in the model the matrix is.
    errors
        Relative errors of the first and the last PER.
    move
        Its lasting move; None if it has none, or that is not known yet.
    """

    component: str
    place: Mapping[str, Any]
    steps: list[int]
    per: list[float]
    errors: tuple[float, float]
    move: Move | None = None

    @property
    def change(self) -> float:
        """Its last PER minus its first."""
        return self.per[-1] - self.per[0]

    @property
    def least(self) -> float:
        """The least change worth a line: more than the errors of the values at both ends."""
        return LEAST + self.per[0] * self.errors[0] + self.per[-1] * self.errors[1]


@dataclass
class _Group:
    """The PER of the matrices of one component, step by step.

    Attributes
    ----------
    numbers
        The number of each matrix by its place, in the order in which they first come.
    steps, ids, per, errors
        For each step: the step itself, and for each of its rows the number of the matrix, its PER
        and the relative error of that.
    """

    component: str
    numbers: dict[tuple[Any, ...], int] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    ids: list[Indices] = field(default_factory=list)
    per: list[NDArray[np.float64]] = field(default_factory=list)
    errors: list[NDArray[np.float64]] = field(default_factory=list)
    _last: tuple[Matrices, bytes, Indices] | None = field(default=None, init=False, repr=False)

    def add(self, found: MeasuredStep, rows: Indices) -> None:
        error, is_known = found.columns.numeric("per_error")
        self.steps.append(found.step)
        self.ids.append(self._ids(found.matrices, rows))
        self.per.append(found.columns.numeric("per").values[rows])
        self.errors.append(np.where(is_known, error, 0.0)[rows])

    def _ids(self, matrices: Matrices, rows: Indices) -> Indices:
        """The numbers of the matrices in some rows: mostly those of the previous step."""
        mark = rows.tobytes()
        if self._last is None or self._last[0] is not matrices or self._last[1] != mark:
            places = (matrices.places[row] for row in rows.tolist())
            ids = [self.numbers.setdefault(place, len(self.numbers)) for place in places]
            self._last = matrices, mark, np.array(ids, np.intp)
        return self._last[2]

    @property
    def series(self) -> list[PerSeries]:
        """The series of each matrix."""
        ids = np.concatenate(self.ids)
        order = np.argsort(ids, kind="stable")
        steps = np.repeat(self.steps, [len(own) for own in self.ids])
        ends = np.cumsum(np.bincount(ids))[:-1]
        arrays = (steps, np.concatenate(self.per), np.concatenate(self.errors))
        split = ([own.tolist() for own in np.split(array[order], ends)] for array in arrays)
        return [
            PerSeries(
                self.component, dict(zip(PLACE, place, strict=True)), at, per, (own[0], own[-1])
            )
            for place, at, per, own in zip(self.numbers, *split, strict=True)
        ]


class Moves:
    """The PER of matrices over the steps, gathered step by step."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._with_weights: set[str] = set()

    def add(self, found: MeasuredStep) -> None:
        """Add the rows of a step that have a rank; PER that may be noise does not count."""
        matrices = found.matrices
        if len(found.ranked(matrices.by_component.get("weight", NOTHING))):
            self._with_weights.add(found.run)
        for (component, window), rows in found.groups(matrices.by_window, certain=True):
            if component in FOLLOWED and window in WHOLE:
                key = component, found.run, window
                self._groups.setdefault(key, _Group(component)).add(found, rows)

    @property
    def series(self) -> dict[tuple[str, str, str], list[PerSeries]]:
        """The series of the matrices of each component, run and window."""
        return {key: group.series for key, group in self._groups.items()}

    def in_words(self, units: Mapping[str, str]) -> list[str]:
        """A sentence for the weights and the updates of each run in which matrices left their band.

        Weights whose PER fell always have one. A run without weights has one for its adapters.
        """
        sentences = []
        for (component, run, window), group in self._groups.items():
            is_told_elsewhere = component == ("adapter" if run in self._with_weights else "update")
            if is_told_elsewhere or len(group.steps) < 2:  # a single step has no move
                continue
            subject = f"{run}: PER of {component}s{WINDOWS[window]}"
            sentence = _sentence(_moved(group.series), subject, units.get(run, "step"))
            sentences += [sentence] if sentence else []
        return sentences


def _moved(family: Iterable[PerSeries]) -> list[PerSeries]:
    """The series of more than one step, with their moves."""
    series = [one for one in family if len(one.steps) > 1]
    moves = lasting_moves(
        [np.array(one.per) for one in series], least=[one.least for one in series]
    )
    return [replace(one, move=move) for one, move in zip(series, moves, strict=True)]


def _sentence(family: list[PerSeries], subject: str, unit: str) -> str:
    """What moved most, and when; how many moved, and which was the first. Empty if nothing did."""
    moved = [one for one in family if one.move]
    fallen = [one for one in family if one.component == "weight" and one.change < -LEAST]
    if not moved and not fallen:
        return ""
    most = max(moved or fallen, key=lambda one: abs(one.change))
    direction = "fell" if most.change < 0 else "rose"
    parts = [f"{subject} {direction} most in {matrix_text(most.place)}, {_way(most, unit)}"]
    if moved and len(family) > 1:
        parts.append(f"{len(moved)} of {len(family)} matrices left their band")
        first = min(moved, key=_left)
        if _left(first) < _left(most):
            parts[-1] += f", the first {matrix_text(first.place)} by {unit} {_left(first)}"
    return "; ".join([*parts, *_means(family)])


def _means(family: list[PerSeries]) -> list[str]:
    """The means over the matrices that have a number at both ends, in words; empty if none has."""
    ends = [end(one.steps[at] for one in family) for at, end in ((0, min), (-1, max))]
    whole = [one for one in family if [one.steps[at] for at in (0, -1)] == ends]
    if not whole:
        return []
    means = [fmean(one.per[at] for one in whole) for at in (0, -1)]
    share = f"{len(whole)} of {len(family)} " if len(whole) < len(family) else ""
    return [f"mean over {share}matrices {means[0]:.3f} → {means[1]:.3f}"]


def _left(one: PerSeries) -> int:
    """The step by which a series that moved had left its band."""
    return one.steps[one.move.leaves] if one.move else 0


def _way(one: PerSeries, unit: str) -> str:
    """PER before the move, outside its first band, and at the end; and at which steps it moved."""
    per, steps, move = one.per, one.steps, one.move
    if move is None:
        return f"{per[0]:.3f} → {per[-1]:.3f}"
    leaves, arrives = move.leaves, max(move.leaves, move.arrives)
    stops = sorted({leaves - 1, leaves, len(per) - 1})
    way = " → ".join(dict.fromkeys(f"{per[stop]:.3f}" for stop in stops))
    left = f"left its band by {unit} {_left(one)}, "
    if arrives == len(per) - 1:
        return f"{way} ({left}still moving at {unit} {steps[-1]})"
    return f"{way} ({left if leaves < arrives else ''}complete by {unit} {steps[arrives]})"


def matrix_text(row: Mapping[str, Any]) -> str:
    """Where in the model a matrix is: its layer and role, or else its name."""
    if row["layer"] is None or row["role"] == "other":
        return str(row["name"])
    places = [f"layer {row['layer']} {row['role']}"]
    places += [f"{name} {row[name]}" for name in ("head", "expert") if row[name] is not None]
    return " ".join(places)
