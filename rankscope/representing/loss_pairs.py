"""Checkpoints of two runs that are equally far: where both have come down to one loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.training_log import read_training_log
from rankscope.representing.collected import Side, kind_of_features, series_key

if TYPE_CHECKING:
    import pandas as pd

LOGGED = ("step", "validation_loss", "loss")
Losses = Callable[[tuple[str, str]], "pd.DataFrame"]  # of two runs, by their names


@dataclass(frozen=True)
class LossPair:
    """A checkpoint of each of two runs, nearest to the lowest loss that both came down to.

    Attributes
    ----------
    losses
        Of the two checkpoints. Features cannot be interpolated, so they differ.
    source
        What they are of, as in `rankscope.statistics.equal_loss.losses_of`.
    """

    side: Side
    against: Side
    losses: tuple[float, float]
    source: str


def losses_of_runs(runs: Sequence[Run], out: Path) -> Losses:
    """Losses of any two of these runs.

    They are those that `rankscope.compare` uses: of an evaluated task in the results folder
    ``out``, or of the trainings' logs.
    """
    import pandas as pd

    from rankscope.results.columns import EVALUATION_FILE
    from rankscope.results.results import Results
    from rankscope.statistics.equal_loss import losses_of

    logged = pd.DataFrame(
        [
            {"run": run.name, **{name: record.get(name) for name in LOGGED}}
            for run in runs
            for record in read_training_log(run)
        ],
        columns=["run", *LOGGED],
    )
    for name in LOGGED[1:]:  # somebody's log may hold anything
        logged[name] = pd.to_numeric(logged[name], errors="coerce")
    names = {run.name for run in runs}
    is_there = (out / EVALUATION_FILE).is_file()
    evaluation = Results(out).evaluation if is_there else pd.DataFrame()
    tables = [one[one["run"].isin(names)] if len(one) else one for one in (evaluation, logged)]

    def losses(pair: tuple[str, str]) -> pd.DataFrame:
        return losses_of(*(one[one["run"].isin(pair)] if len(one) else one for one in tables))

    return losses


def loss_pairs(sides: Sequence[Side], losses: Losses) -> tuple[list[LossPair], list[Skip]]:
    """Every two runs that were looked into alike, where they are equally far; and those without."""
    pairs: list[LossPair] = []
    skips: dict[tuple[str, str], Skip] = {}
    ordered = sorted(sides, key=lambda side: (kind_of_features(side), *series_key(side), side.step))
    for _, alike in groupby(ordered, key=kind_of_features):
        series = [list(some) for _, some in groupby(alike, key=series_key)]
        for one, other in combinations(series, 2):
            found = _pair(one, other, losses)
            runs = one[0].curve.run, other[0].curve.run
            if isinstance(found, LossPair):
                pairs.append(found)
            elif found:
                message = f"is not compared with {runs[1]} at equal loss: {found}"
                skips.setdefault(runs, Skip(one[0].curve.path, "", "no-loss", message))
    return pairs, list(skips.values())


def _pair(one: Sequence[Side], other: Sequence[Side], losses: Losses) -> LossPair | str:
    """The checkpoints of two runs that are equally far, or why there are none."""
    from rankscope.statistics.equal_loss import at_steps, common_level

    runs = one[0].curve.run, other[0].curve.run
    table = losses(runs)
    curves = [
        at_steps(table, side[0].curve.run, {each.step for each in side}) for side in (one, other)
    ]
    level = common_level(curves)
    if math.isnan(level):
        return (
            "no loss that both reached is in their logs; `rankscope evaluate` into the same folder "
            "measures it"
        )
    side, loss = _nearest(one, curves[0], level)
    against, its_loss = _nearest(other, curves[1], level)
    return LossPair(side, against, (loss, its_loss), str(table["source"].iloc[0]))


def _nearest(series: Sequence[Side], curve: pd.Series[float], level: float) -> tuple[Side, float]:
    """The checkpoint nearest to where a run first came down to a level, and its loss."""
    from rankscope.statistics.equal_loss import around

    before, after, _ = around(curve, level)
    is_before = abs(curve[before] - level) < abs(curve[after] - level)
    step = before if is_before else after
    return next(side for side in series if side.step == step), float(curve[step])


def iter_pairs_of(side: Side, pairs: Sequence[LossPair]) -> Iterator[LossPair]:
    """The pairs whose first checkpoint this is."""
    return (pair for pair in pairs if pair.side is side)
