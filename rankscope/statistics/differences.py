"""`differences`: in which metrics two runs, or two groups of runs, differ beyond their spread."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rankscope.statistics.matching import NONE, PLACE, Matched, matched
from rankscope.statistics.quantities import quantity

METRICS = (
    *("per", "stable_rank"),
    *("condition_number", "condition_number_90", "condition_number_r", "tail_index"),
    *("spectral_norm", "frobenius_norm", "relative_size"),
)
"""Compared by default."""
COLUMNS = (
    *("at", "step_a", "step_b", "loss", "distance"),
    *("component", "since", "role", "layer", "metric"),
    *("a", "b", "difference", "error", "spread", "p", "differs", "layers", "runs_a", "runs_b"),
)
MOMENT = ["at", "component", "since", "step", "role", "metric"]
LAYER = [*MOMENT, "layer"]


@dataclass(frozen=True)
class Sides:
    """The runs on either side of a comparison, and what the sides are called."""

    a: tuple[str, ...]
    b: tuple[str, ...]
    name_a: str = "a"
    name_b: str = "b"

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs."""
        return (*self.a, *self.b)

    @property
    def has_replicates(self) -> bool:
        """Whether there is a spread over runs to judge by."""
        return len(self.runs) > 2


def differences(
    table: pd.DataFrame,
    sides: Sides,
    *,
    losses: pd.DataFrame | None = None,
    columns: Collection[str] = METRICS,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the differences of two runs or groups of runs, each with what it must exceed.

    Matrices of one shape are paired by layer, role, head and expert: at every step that all runs
    have (where they have none in common, at the last of each), where all have come down to one
    loss, and, role by role, where they have gone equally far from where they began in all runs
    (`rankscope.statistics.equal_distance.distances_of`). Changes are paired where their windows
    begin alike.

    A difference ``differs`` if it is beyond ``error`` + ``spread``. ``error`` is what arithmetic
    and storage can have done, and, between two checkpoints, all that lies between them.
    ``spread`` is the half width of an interval that would hold the difference of two runs that
    differ by chance alone, from Student's t:

    - with replicates, from the pooled variance of the runs, each averaged over its layers: exact
      for runs that differ by their seed;
    - with one run on either side, for a role: sd·√(1 + 1/L) of the differences of its L layers. It
      holds if runs differ no more from each other than layers of a pair of runs do;
    - with one run on either side, for a layer: the root mean square of the differences of the
      other layers. It shows layers that stand out, and nothing where all move alike.

    Parameters
    ----------
    table
        The metrics table.
    sides
        The runs.
    losses
        From `losses_of`, to compare at equal loss as well.
    columns
        Metrics, of those whose errors are known.
    confidence
        Level of the interval; the share of false alarms is one minus it, for each row.

    Returns
    -------
    The columns `COLUMNS`, one row per moment, component, role, metric, and layer; ``at`` is
    ``step``, ``loss``, ``distance`` or ``last``, and ``layer`` is missing for the mean over layers.
    ``a`` and ``b`` are means (geometric ones where the quantity
    spans decades; ``difference``, ``error`` and ``spread`` are then in decimal logarithms).
    ``spread`` is missing, and nothing differs, where there are neither replicates nor two layers.

    Raises
    ------
    WrongSettingError
        If the error of a metric is not known from the table.
    """
    none = pd.DataFrame(columns=["run", "step", "loss", "source"])
    found = matched(table, sides.runs, columns, none if losses is None else losses)
    layers = _joined(_of_layers(part, sides) for part in found.parts)
    return _finished(_judged(_tested(layers, sides), confidence), sides, found)


@dataclass(frozen=True)
class _Layers:
    """Values and errors by layer; one column per run."""

    values: pd.DataFrame
    errors: pd.DataFrame

    def roles(self) -> _Layers:
        """Means over layers."""
        return _Layers(
            self.values.groupby(level=MOMENT).mean(), self.errors.groupby(level=MOMENT).mean()
        )

    def differences(self, sides: Sides) -> pd.DataFrame:
        """Both sides, their difference, and a bound on its error."""
        a, b = (self.values[list(runs)].mean(axis=1) for runs in (sides.a, sides.b))
        errors = (self.errors[list(runs)].mean(axis=1) for runs in (sides.a, sides.b))
        return pd.DataFrame({"a": a, "b": b, "difference": b - a, "error": sum(errors)})

    def pooled(self, sides: Sides) -> pd.Series[float]:
        """Standard deviation of the difference of two means of runs of one variance."""
        squares = pd.Series(0.0, index=self.values.index)
        for runs in (sides.a, sides.b):
            own = self.values[list(runs)]
            squares += own.sub(own.mean(axis=1), axis=0).pow(2).sum(axis=1)
        variance = squares / (len(sides.runs) - 2)
        return (variance * (1 / len(sides.a) + 1 / len(sides.b))).pow(0.5)


def _of_layers(rows: pd.DataFrame, sides: Sides) -> _Layers:
    """Means over the heads and experts of a layer, of matrices that all runs have."""
    keys = [*MOMENT, *PLACE, *(["name"] if "name" in rows else [])]
    indexed = rows.set_index([*keys, "run"])
    value, error = (
        indexed[name].unstack("run").reindex(columns=list(sides.runs)).astype(float)
        for name in ("value", "error")
    )
    there = value.notna().all(axis=1)
    return _Layers(*(one[there].groupby(level=LAYER).mean() for one in (value, error)))


def _joined(parts: Iterable[_Layers]) -> _Layers:
    """Layers of different moments or metrics in one order."""
    values, errors = zip(*((part.values, part.errors) for part in parts), strict=True)
    return _Layers(*(_in_order(list(one)) for one in (values, errors)))


def _in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([part for part in parts if len(part)] or parts[:1]).sort_index()


def _tested(layers: _Layers, sides: Sides) -> pd.DataFrame:
    """Differences by role and by layer, each with the deviation that chance would give it."""
    roles = layers.roles()
    by_layer, by_role = layers.differences(sides), roles.differences(sides)
    change = by_layer["difference"].groupby(level=MOMENT)
    by_role["layers"] = change.size()
    by_layer["layers"] = 1
    if sides.has_replicates:
        freedom = len(sides.runs) - 2
        by_layer = by_layer.assign(deviation=layers.pooled(sides), freedom=freedom)
        by_role = by_role.assign(deviation=roles.pooled(sides), freedom=freedom)
    else:
        count = by_role["layers"]
        by_role["deviation"] = change.std() * (1 + 1 / count) ** 0.5
        by_role["freedom"] = count - 1
        squares = by_layer["difference"] ** 2
        others = change.transform("size") - 1
        rest = (squares.groupby(level=MOMENT).transform("sum") - squares).clip(lower=0)
        by_layer["deviation"] = (rest / others.where(others > 0)) ** 0.5
        by_layer["freedom"] = others
    return pd.concat([by_role.reset_index().assign(layer=NONE), by_layer.reset_index()])


def _judged(found: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Spread, p and verdict; without a spread, as of a single layer, there is no verdict."""
    from scipy import stats

    size, error = (found[name].to_numpy(np.float64) for name in ("difference", "error"))
    deviation, freedom = (found[name].to_numpy(np.float64) for name in ("deviation", "freedom"))
    size = np.abs(size)
    freedom = np.where(freedom > 0, freedom, np.nan)
    beyond = np.maximum(size - error, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(beyond > 0, beyond / deviation, 0.0)
        spread = stats.t.ppf((1 + confidence) / 2, freedom) * deviation
        chance = 2 * stats.t.sf(ratio, freedom)
    return found.assign(spread=spread, p=chance, differs=size > error + spread)


def _finished(found: pd.DataFrame, sides: Sides, matches: Matched) -> pd.DataFrame:
    """The table with its columns, types and order."""
    log = found["metric"].isin([name for name in found["metric"].unique() if quantity(name).log])
    for side, runs in (("a", sides.a), ("b", sides.b)):
        steps = found["step"].astype(float)
        for (at, role), places in matches.places.items():
            where = [places[run].step for run in runs if run in places]
            is_there = (found["at"] == at) & (found["role"] == role)
            steps = steps.mask(is_there, float(np.mean(where)) if where else np.nan)
        found[f"step_{side}"] = steps
        found[side] = found[side].mask(log, 10.0 ** found[side])
        found[f"runs_{side}"] = len(runs)
    found = found.assign(loss=np.nan, distance=np.nan)
    for (at, role), level in matches.levels.items():
        found[at] = found[at].mask((found["at"] == at) & (found["role"] == role), level)
    for name in ("since", "layer"):
        found[name] = found[name].where(found[name] != NONE).astype("Int64")
    order = ["at", "step_a", "component", "since", "role", "metric", "layer"]
    ascending = [False, *[True] * 6]
    found = found.sort_values(order, ascending=ascending, na_position="first")
    return found[list(COLUMNS)].reset_index(drop=True)
