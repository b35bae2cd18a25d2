"""`correlate`: whether the ranks of a model's weights move with what the model can do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.scoring.intervals import NO_INTERVAL
from rankscope.statistics.block_bootstrap import (
    METHODS,
    block_counts,
    block_length,
    percentile_interval,
)
from rankscope.statistics.selection import chosen_rows
from rankscope.statistics.summary import known_centres

Values = NDArray[np.float64]
Series: TypeAlias = "pd.Series[float]"
Measure = tuple[str, str, str]  # task, group, metric

COLUMNS = (
    *("run", "component", "role", "column", "task", "group", "metric"),
    *("form", "method", "value", "ci_low", "ci_high", "n", "block"),
)
KEY = ["task", "group", "metric"]
WHOLE_TASK = ("loss", "perplexity", "accuracy")
FEWEST = 4
FEWEST_FOR_INTERVAL = 8
"""Below it, resamples are so few and so alike that some 95 % intervals hold the truth in 65 %."""


def correlate(
    metrics: pd.DataFrame,
    evaluation: pd.DataFrame,
    *,
    columns: Sequence[str] = ("per", "condition_number"),
    component: str = "weight",
    measures: Sequence[Measure] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate ranks with performance over the checkpoints of each run.

    Every role's rank metric, summarised over layers as its figure draws it, is a series over
    steps, and so is every measure of performance. Steps enter where both are known: not where a
    median condition number is only a lower bound, nor where a value is infinite. Of what spans
    decades, condition numbers and perplexities, the logarithm is taken first, for all forms and
    methods; the logarithm of a perplexity is the loss, so that the two correlate alike.

    **What a correlation over one training does not show.** Two curves that both move as training
    goes on correlate near ±1 whatever causes them: many points of a trend tell no more than its
    direction. The form ``levels`` is therefore evidence of nothing, with or without its interval,
    which supposes series without a trend. The form ``differences``, between successive common
    steps, asks whether the one moves more than usual when the other does. It takes out what
    drifts or grows evenly, not that almost everything changes fast at first and slowly later: what
    rows of the later steps alone do not show too came from there. Even then both may follow a third
    thing, such as the learning rate. And a run is a sample of one: ``n`` counts steps, not
    independent trainings, and the interval is about other steps like these, not another run.

    Parameters
    ----------
    metrics
        The metrics table of an analysis.
    evaluation
        The evaluation table: columns ``run``, ``step``, ``task``, ``group``, ``metric``, ``value``.
    columns
        Which rank metrics, columns of ``metrics``.
    component
        Of which matrices: ``weight``, ``update``, …
    measures
        Which performance, as triples (task, group, metric), such as
        ``("blimp", "phenomenon:binding", "accuracy")``. If not given, the loss, perplexity and
        accuracy of every task as a whole, as far as there are any.
    resamples
        How many resamples an interval is from.
    seed
        Of the resamples. The same for every pair of series: a row does not depend on the others.

    Returns
    -------
    One row a run, role, column, measure, form (``levels``, ``differences``) and method
    (``spearman``, ``pearson``), in order:

    - ``value``: the correlation; NaN for fewer than 4 points, or where a series does not vary.
    - ``ci_low``, ``ci_high``: its 95 % interval, the middle of the estimates from a moving-block
      bootstrap over steps, since successive steps are alike; NaN for fewer than 8 points.
    - ``n``: how many points: common steps, or differences between them.
    - ``block``: how many successive points the bootstrap draws together, about ∛n.

    Empty if one of the tables is.

    Raises
    ------
    RankscopeError
        If there is no such component, column or measure, or a measure has two values at a step.

    References
    ----------
    G. U. Yule, *Why do we sometimes get nonsense-correlations between time-series?*, Journal of
    the Royal Statistical Society 89, 1926.
    C. W. J. Granger and P. Newbold, *Spurious regressions in econometrics*, Journal of
    Econometrics 2, 1974.
    H. R. Künsch, *The jackknife and the bootstrap for general stationary observations*, Annals of
    Statistics 17, 1989.
    """
    if metrics.empty or evaluation.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    counts_of = cache(partial(block_counts, resamples=resamples, seed=seed))
    performance = _performance(evaluation, measures)
    rows = [
        (run, component, role, column, *measure, *found)
        for run, role, column, rank in _iter_ranks(metrics, columns, component)
        for measure, reached in performance.get(run, {}).items()
        for found in _iter_correlations(rank, reached, counts_of)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _iter_ranks(
    metrics: pd.DataFrame, columns: Sequence[str], component: str
) -> Iterator[tuple[str, str, str, Series]]:
    """Yield run, role, column and the rank metric by step."""
    for role, rows in chosen_rows(metrics, component=component).groupby("role", sort=True):
        for column in columns:
            for run, points in known_centres(rows, column).groupby("run", sort=True):
                yield str(run), str(role), column, points.set_index("step")["centre"]


def _performance(
    evaluation: pd.DataFrame, measures: Sequence[Measure] | None
) -> dict[str, dict[Measure, Series]]:
    """Of every run, its measures by step, each where it is finite after taking logarithms."""
    there = {(str(t), str(g), str(m)): rows for (t, g, m), rows in evaluation.groupby(KEY)}
    if measures is None:
        measures = [key for key in there if key[1] == "all" and key[2] in WHOLE_TASK]
    found: dict[str, dict[Measure, Series]] = {}
    for measure in measures:
        if measure not in there:
            raise RankscopeError(
                f"nothing was measured as {measure!r}: the evaluation has "
                + ", ".join(map(str, there))
            )
        for run, rows in there[measure].groupby("run"):
            found.setdefault(str(run), {})[measure] = _by_step(rows, measure)
    return found


def _by_step(rows: pd.DataFrame, measure: Measure) -> Series:
    if rows["step"].duplicated().any():
        raise RankscopeError(f"the evaluation has two values of {measure!r} at a step of a run")
    values = rows["value"].to_numpy(np.float64)
    if measure[2].endswith("perplexity"):
        with np.errstate(divide="ignore"):
            values = np.log(values)
    known = np.isfinite(values)
    return pd.Series(values[known], index=rows.loc[known, "step"].astype(int))


def _iter_correlations(
    rank: Series, reached: Series, counts_of: Callable[[int], Values]
) -> Iterator[tuple[str, str, float, float, float, int, int]]:
    """Yield form, method, value, interval, points and block length."""
    levels = pd.concat([rank, reached], axis=1, join="inner").sort_index().to_numpy(np.float64)
    for form, series in (("levels", levels), ("differences", np.diff(levels, axis=0))):
        x, y = series.T
        n = len(x)
        for method, estimate in METHODS.items():
            value, interval = math.nan, NO_INTERVAL
            if n >= FEWEST:
                value = float(estimate(x, y, np.ones((1, n)))[0])
            if n >= FEWEST_FOR_INTERVAL and not math.isnan(value):
                interval = percentile_interval(estimate(x, y, counts_of(n)))
            yield form, method, value, *interval, n, block_length(n)
