"""Checkpoints of two runs that are equally far: where both have come down to one loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.contents import Skip
from rankscope.representing.comparison_sides import Side, kind_of_features, series_key

if TYPE_CHECKING:
    import pandas as pd

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


def losses_in(out: Path) -> tuple[Losses, str]:
    """Losses on record in a results folder, of any two runs, and a text that changes with them.

    They are those that `rankscope.compare` uses: an evaluated task's, or those of the trainings'
    logs.
    """
    import pandas as pd

    from rankscope.results.columns import EVALUATION_FILE, TRAINING_FILE
    from rankscope.results.results import Results
    from rankscope.statistics.equal_loss import losses_of

    results = Results(out)
    tables = [
        results.evaluation if (out / EVALUATION_FILE).is_file() else pd.DataFrame(),
        results.training if (out / TRAINING_FILE).is_file() else pd.DataFrame(),
    ]

    def losses(runs: tuple[str, str]) -> pd.DataFrame:
        own = [one[one["run"].isin(runs)] if "run" in one else one for one in tables]
        return losses_of(own[0], own[1])

    return losses, "".join(str(one.to_csv()) for one in tables)


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
    from rankscope.statistics.equal_loss import around, at_steps, common_level

    runs = one[0].curve.run, other[0].curve.run
    table = losses(runs)
    curves = [
        at_steps(table, side[0].curve.run, {each.step for each in side}) for side in (one, other)
    ]
    level = common_level(curves)
    if math.isnan(level):
        return (
            "no loss that both reached is on record; `rankscope analyze` reads the trainings' "
            "logs, `rankscope evaluate` measures it"
        )
    nearest = []
    for side, curve in zip((one, other), curves, strict=True):
        before, after, _ = around(curve, level)
        step = min((after, before), key=lambda at, curve=curve: abs(float(curve[at]) - level))
        nearest.append((next(each for each in side if each.step == step), float(curve[step])))
    (side, loss), (against, its_loss) = nearest
    return LossPair(side, against, (loss, its_loss), str(table["source"].iloc[0]))


def iter_pairs_of(side: Side, pairs: Sequence[LossPair]) -> Iterator[LossPair]:
    """The pairs whose first checkpoint this is."""
    return (pair for pair in pairs if pair.side is side)
