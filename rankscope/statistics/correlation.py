"""`correlate`: whether the ranks of a model's weights move with what the model can do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.co_movement import (
    FEWEST,
    METHODS,
    correlation_of,
    interval_of,
    later_changes,
)
from rankscope.statistics.feature_measures import PREFIX
from rankscope.statistics.intervals import NO_INTERVAL
from rankscope.statistics.row_choice import chosen_rows
from rankscope.statistics.step_summary import cuts_of, known_centres

Series: TypeAlias = "pd.Series[float]"
Measure = tuple[str, str, str]  # task, group, metric

COLUMNS = (
    *("run", "component", "role", "column", "task", "group", "metric"),
    *("form", "method", "value", "ci_low", "ci_high", "n"),
)
KEY = ["task", "group", "metric"]
WHOLE_TASK = ("loss", "perplexity", "accuracy")


def correlate(
    metrics: pd.DataFrame,
    evaluation: pd.DataFrame,
    *,
    columns: Sequence[str] = ("per", "condition_number"),
    component: str = "weight",
    measures: Sequence[Measure] | None = None,
) -> pd.DataFrame:
    """Correlate ranks with performance over the checkpoints of each run.

    Each role's rank metric, summarised over layers as in its figure, is a series over steps, and
    so is each measure of performance. The steps used are those at which both are known: not those
    where a median condition number is only a lower bound or a value is infinite. Where another
    model begins within a run, only the steps from there on are used. Quantities that span decades,
    condition numbers and perplexities, enter by their logarithm, for all forms and methods; the log
    of a perplexity is the loss, so both correlate alike.

    **What a correlation over one training does not show.** Two curves that both move as training
    proceeds correlate near ±1 whatever the cause: many points of a trend say no more than its
    direction. The form ``levels`` is therefore no evidence of anything, and has no interval. The
    form ``differences`` asks whether one moves more than usual when the other does: it correlates
    the changes between successive common steps, without the first third of them and without their
    slow trend (`rankscope.statistics.co_movement.later_changes`), since in every run almost
    everything changes fast at first and slowly later. Even then both may follow a third thing, such
    as the learning rate. Also, a run is a sample of one: ``n`` counts steps, not independent
    trainings, and the interval is about other steps like these, not another run.

    Parameters
    ----------
    metrics
        The metrics table of an analysis.
    evaluation
        The evaluation table: columns ``run``, ``step``, ``task``, ``group``, ``metric``, ``value``;
        or that of `rankscope.feature_measures`, to relate the ranks of weights to those of
        features.
    columns
        Which rank metrics, columns of ``metrics``.
    component
        Which matrices: ``weight``, ``update``, …
    measures
        Which measures of performance, as triples (task, group, metric), such as
        ``("blimp", "phenomenon:binding", "accuracy")``. By default the loss, perplexity and
        accuracy of every task as a whole, if any, and all of `rankscope.feature_measures`.

    Returns
    -------
    One row per run, role, column, measure, form (``levels``, ``differences``) and method
    (``spearman``, ``pearson``), in order:

    - ``value``: the correlation; NaN for fewer than 4 levels or 8 differences, or where a series
      does not vary.
    - ``ci_low``, ``ci_high``: its 95 % interval, for differences only: it holds the truth in 94 to
      98 % of independent, autocorrelated and decaying pairs (simulated in the tests). NaN for fewer
      than 16 differences, or where both series are so smooth that a trend must be left.
    - ``n``: the number of points: common steps, or their remaining differences.

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

    Examples
    --------
    Any two trends correlate in levels, here PER with a loss that falls by itself:

    >>> import rankscope as rs
    >>> metrics = rs.open_results("results").metrics.query("run == 'relora' and role == 'q'")
    >>> loss = metrics[["run", "step"]].drop_duplicates().assign(
    ...     task="novels", group="all", metric="loss", value=lambda rows: -rows["step"]
    ... )
    >>> correlations = rs.correlate(metrics.assign(per=metrics["step"]), loss, columns=["per"])
    >>> correlations[["form", "method", "value", "n"]]
              form    method  value  n
    0       levels  spearman   -1.0  4
    1       levels   pearson   -1.0  4
    2  differences  spearman    NaN  2
    3  differences   pearson    NaN  2
    """
    if metrics.empty or evaluation.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    performance = performance_by_run(evaluation, measures)
    rows = [
        (run, component, role, column, *measure, *correlated)
        for run, role, column, rank in iter_rank_series(metrics, columns, component)
        for measure, reached in performance.get(run, {}).items()
        for correlated in _iter_correlations(rank, reached)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def iter_rank_series(
    metrics: pd.DataFrame, columns: Sequence[str], component: str
) -> Iterator[tuple[str, str, str, Series]]:
    """Yield run, role, column and the rank metric by step, from the run's last break on."""
    rows = chosen_rows(metrics, component=component)
    begins = rows["run"].map(cuts_of(metrics).breaks).fillna(-math.inf)
    for role, of_role in rows[rows["step"] >= begins].groupby("role", sort=True):
        for column in columns:
            for run, points in known_centres(of_role, column).groupby("run", sort=True):
                yield str(run), str(role), column, points.set_index("step")["centre"]


def is_usual(measure: Measure) -> bool:
    """Whether a measure is of a task as a whole, or of features."""
    _, group, metric = measure
    return (group == "all" and metric in WHOLE_TASK) or metric.startswith(PREFIX)


def performance_by_run(
    evaluation: pd.DataFrame, measures: Sequence[Measure] | None
) -> dict[str, dict[Measure, Series]]:
    """Measures by run, each a series over the steps at which its (log) value is finite."""
    measured = {(str(t), str(g), str(m)): rows for (t, g, m), rows in evaluation.groupby(KEY)}
    if measures is None:
        measures = [key for key in measured if is_usual(key)]
    by_run: dict[str, dict[Measure, Series]] = {}
    for measure in measures:
        if measure not in measured:
            raise WrongSettingError(
                f"nothing was measured as {measure!r}: the evaluation has "
                + ", ".join(map(str, measured))
            )
        for run, rows in measured[measure].groupby("run"):
            by_run.setdefault(str(run), {})[measure] = _by_step(rows, measure)
    return by_run


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
    rank: Series, reached: Series
) -> Iterator[tuple[str, str, float, float, float, int]]:
    """Yield form, method, value, both ends of the interval, and the number of points."""
    levels = pd.concat([rank, reached], axis=1, join="inner").sort_index().to_numpy(np.float64).T
    changes = tuple(map(later_changes, levels))
    for form, (x, y) in (("levels", levels), ("differences", changes)):
        for method in METHODS:
            value, interval = math.nan, NO_INTERVAL
            if len(x) >= FEWEST[form]:
                value = correlation_of(x, y, method)
                interval = interval_of(x, y, method) if form == "differences" else NO_INTERVAL
            yield form, method, value, *interval, len(x)


def means_over_runs(rows: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Mean of the runs of each series, with their least and greatest in place of the interval."""
    places = rows.groupby([hue, "role", "form"], sort=False)["value"]
    table = places.agg(value="mean", ci_low="min", ci_high="max").reset_index()
    alone = (places.count() <= 1).to_numpy()
    ends = {end: table[end].mask(alone) for end in ("ci_low", "ci_high")}
    return table.assign(**ends)
