"""Which matrices left the band of PER in which they began, from which step on, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rankscope.analysis.summary_lines import KINDS, by_noise, grouped
from rankscope.results.columns import KEY
from rankscope.results.measure import Row
from rankscope.results.summary_tables import WINDOWS
from rankscope.statistics.onset import Move, lasting_moves

WHOLE = ("", "cycle")  # parts of cycles belong to different adapters
LEAST = 0.01  # a change of PER that is not worth a line
SAME_MATRIX = tuple(name for name in KEY if name != "step")


@dataclass(frozen=True)
class _Series:
    """The PER of one matrix in order of the steps, and its lasting move; None if it has none."""

    rows: list[Row]
    move: Move | None

    @property
    def change(self) -> float:
        return float(self.rows[-1]["per"] - self.rows[0]["per"])


def moves_in_words(ranked: Sequence[Row], units: Mapping[str, str]) -> list[str]:
    """A sentence for the weights and the updates of each run in which matrices left their band.

    Weights that fell have one in any case. A run without weights has one for its adapters. Rows
    whose PER may be rounding noise do not count.
    """
    whole = {row["run"] for row in ranked if row["component"] == "weight"}
    told = [
        row
        for row in ranked
        if row["component"] in ("weight", "update" if row["run"] in whole else "adapter")
        and (row["window"] or "") in WHOLE
    ]
    _, certain = by_noise(told)
    families = grouped(certain, lambda row: tuple(row[name] or "" for name in KINDS))
    sentences = []
    for (component, run, window), rows in families.items():
        subject = f"{run}: PER of {component}s{WINDOWS[window]}"
        sentence = _sentence(_family(rows), subject, units.get(run, "step"))
        sentences += [sentence] if sentence else []
    return sentences


def _family(rows: list[Row]) -> list[_Series]:
    """The series of more than one step."""
    by_matrix = grouped(rows, lambda row: tuple(row[name] for name in SAME_MATRIX))
    series = [some for some in by_matrix.values() if len(some) > 1]
    values = [np.array([row["per"] for row in some]) for some in series]
    moves = lasting_moves(values, least=[_least(some) for some in series])
    return [_Series(some, move) for some, move in zip(series, moves, strict=True)]


def _least(rows: list[Row]) -> float:
    """The least change worth a line: more than the values at its ends may be wrong."""
    errors = (row["per"] * (row["per_error"] or 0.0) for row in (rows[0], rows[-1]))
    return LEAST + float(sum(errors))


def _sentence(family: list[_Series], subject: str, unit: str) -> str:
    """What moved most, and when; how many moved, and which was the first. Empty if nothing did."""
    moved = [one for one in family if one.move]
    fallen = [one for one in family if one.rows[0]["component"] == "weight" and one.change < -LEAST]
    if not moved and not fallen:
        return ""
    most = max(moved or fallen, key=lambda one: abs(one.change))
    direction = "fell" if most.change < 0 else "rose"
    parts = [f"{subject} {direction} most in {matrix_text(most.rows[0])}, {_way(most, unit)}"]
    if moved and len(family) > 1:
        parts.append(f"{len(moved)} of {len(family)} matrices left their band")
        first = min(moved, key=_left)
        if _left(first) < _left(most):
            parts[-1] += f", the first {matrix_text(first.rows[0])} by {unit} {_left(first)}"
    return "; ".join([*parts, *_means(family)])


def _means(family: list[_Series]) -> list[str]:
    """The means over those matrices that have a number at both ends, in words; none for none."""
    ends = [end(one.rows[at]["step"] for one in family) for at, end in ((0, min), (-1, max))]
    whole = [one for one in family if [one.rows[at]["step"] for at in (0, -1)] == ends]
    if not whole:
        return []
    means = [fmean(one.rows[at]["per"] for one in whole) for at in (0, -1)]
    share = f"{len(whole)} of {len(family)} " if len(whole) < len(family) else ""
    return [f"mean over {share}matrices {means[0]:.3f} → {means[1]:.3f}"]


def _left(one: _Series) -> int:
    """The step by which a series that moved had left its band."""
    return int(one.rows[one.move.leaves]["step"]) if one.move else 0


def _way(one: _Series, unit: str) -> str:
    """PER before the move, outside its first band, and at the end; and at which steps it moved."""
    rows, move = one.rows, one.move
    if move is None:
        return f"{rows[0]['per']:.3f} → {rows[-1]['per']:.3f}"
    leaves, arrives = move.leaves, max(move.leaves, move.arrives)
    stops = sorted({leaves - 1, leaves, len(rows) - 1})
    way = " → ".join(dict.fromkeys(f"{rows[stop]['per']:.3f}" for stop in stops))
    left = f"left its band by {unit} {_left(one)}, "
    if arrives == len(rows) - 1:
        return f"{way} ({left}still moving at {unit} {rows[-1]['step']})"
    return f"{way} ({left if leaves < arrives else ''}complete by {unit} {rows[arrives]['step']})"


def matrix_text(row: Row) -> str:
    """Where in the model a matrix is: its layer and role, or else its name."""
    if row["layer"] is None or row["role"] == "other":
        return str(row["name"])
    places = [f"layer {row['layer']} {row['role']}"]
    places += [f"{name} {row[name]}" for name in ("head", "expert") if row[name] is not None]
    return " ".join(places)
