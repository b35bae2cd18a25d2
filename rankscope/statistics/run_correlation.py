"""`correlate_runs`: whether runs whose weights have a higher rank are better, run by run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.metrics import Values
from rankscope.statistics.associations import (
    RANK_METHODS,
    permutation_p,
    rank_correlation,
    rank_interval,
)
from rankscope.statistics.co_movement import STILL
from rankscope.statistics.correlation import (
    KEY,
    Measure,
    Series,
    is_usual,
    iter_rank_series,
    performance_by_run,
)
from rankscope.statistics.replicates import groups_of

Scope = Literal["all", "between", "within"]
PLACE = ["role", "column", *KEY]
POINTS = (*PLACE, "step", "run", "rank", "performance")
COLUMNS = (
    *("component", *PLACE, "step", "scope", "method"),
    *("value", "ci_low", "ci_high", "p", "n", "groups"),
)
SURE = 0.05


def correlate_runs(
    metrics: pd.DataFrame,
    evaluation: pd.DataFrame,
    *,
    columns: Sequence[str] = ("per", "condition_number"),
    component: str = "weight",
    measures: Sequence[Measure] | None = None,
    step: int | None = None,
    group: str | None = None,
) -> pd.DataFrame:
    """Correlate rank with performance over runs, at one step: each run is one point.

    `rankscope.correlate` follows one training, whose steps are not independent. Here the runs are
    the sample, so a correlation is evidence about trainings of this kind. Its meaning depends on
    the scope:

    - *between* groups (arms of a study, each with several seeds), of the means of the groups: do
      the methods that leave a higher rank perform better?
    - *within* groups, of what each run has more than the mean of its group: of two seeds of one
      method, is the one with the higher rank better?
    - over *all* runs, which mixes the two. They may even have opposite signs (Simpson's paradox):
      if ranks differ between methods for another reason than performance does, all runs together
      show a relation that holds within no method. So with groups it has neither interval nor p;
      runs of one group are not independent either.

    Parameters
    ----------
    metrics
        The metrics table of an analysis.
    evaluation
        The evaluation table, or that of `rankscope.feature_measures`. Runs without an evaluation,
        or without such matrices, are left out.
    columns, component, measures
        As for `rankscope.correlate`. By default, the perplexity of a task is left out if its loss
        is there, since both have the same order.
    step
        The step to compare at; runs that lack it are left out, with a `RankscopeWarning`. By
        default the last one at which all runs have both.
    group
        A pattern that groups runs into replicates, as in `rankscope.grouped`. Groups of one run do
        not count for ``within``.

    Returns
    -------
    One row per role, column, measure, scope (``all``, and with ``group`` also ``between`` and
    ``within``) and method (``spearman``, ``kendall``), in order:

    - ``value``: the correlation; NaN for fewer than 4 points or where they do not vary.
    - ``ci_low``, ``ci_high``: its 95 % interval over other runs (or groups) of the kind; NaN for
      fewer than 8 independent points, of which there are n − groups + 1 within groups.
    - ``p``: how often pairing at random, within groups for ``within``, gives one as far from 0.
    - ``n``, ``groups``: the number of points, and of groups that they are of (0 without ``group``).

    Empty if one of the tables is.

    Raises
    ------
    WrongSettingError
        If the runs have no step in common, or no run has the requested step; also as for
        `rankscope.correlate` and `rankscope.grouped`.

    References
    ----------
    E. H. Simpson, *The interpretation of interaction in contingency tables*, Journal of the Royal
    Statistical Society B 13, 1951.
    J. M. Bland and D. G. Altman, *Calculating correlation coefficients with repeated observations*,
    BMJ 310, 1995.

    Examples
    --------
    Two methods with four seeds each. The second has lower ranks and lower losses, but within each
    the seed with the higher rank has the lower loss:

    >>> import pandas as pd
    >>> import rankscope as rs
    >>> seeds = [f"{method}-{seed}" for method in "ab" for seed in range(4)]
    >>> metrics = rs.open_results("results").metrics.query(
    ...     "run == 'full' and step == 100 and component == 'weight' and role == 'q'"
    ... )
    >>> metrics = pd.concat(
    ...     metrics.assign(run=run, per=0.8 - 0.3 * (run[0] == "b") + 0.01 * int(run[-1]))
    ...     for run in seeds
    ... )
    >>> losses = [3.0 - (run[0] == "b") - 0.1 * int(run[-1]) for run in seeds]
    >>> evaluation = pd.DataFrame({"run": seeds, "value": losses}).assign(
    ...     step=100, task="novels", group="all", metric="loss"
    ... )
    >>> found = rs.correlate_runs(metrics, evaluation, columns=["per"], group=r"(.*)-")
    >>> found[found["method"] == "spearman"][["scope", "value", "n"]].round(2)
         scope  value  n
    0      all   0.52  8
    2  between    NaN  2
    4   within  -1.00  8
    """
    points = run_points(
        metrics, evaluation, columns=columns, component=component, measures=measures, step=step
    )
    groups = {} if group is None else groups_of(map(str, points["run"].unique()), group)
    rows = [
        (component, *place, *found)
        for place, of_place in points.groupby([*PLACE, "step"], sort=False)
        for found in _iter_found(of_place.set_index("run"), groups)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reversals(correlations: pd.DataFrame) -> pd.DataFrame:
    """Where runs correlate one way within groups, and groups the other way: Simpson's paradox.

    Returns
    -------
    The rows of scope ``between`` whose sign is another within groups, where both have p < 0.05.
    """
    key = ["component", *PLACE, "step", "method"]
    sure = correlations[correlations["p"] < SURE]
    within = sure.loc[sure["scope"] == "within", [*key, "value"]]
    between = sure[sure["scope"] == "between"]
    both = between.merge(within, on=key, suffixes=("", "_within"))
    rows: pd.DataFrame = both.loc[both["value"] * both["value_within"] < 0, list(COLUMNS)]
    return rows


def run_points(
    metrics: pd.DataFrame,
    evaluation: pd.DataFrame,
    *,
    columns: Sequence[str],
    component: str,
    measures: Sequence[Measure] | None,
    step: int | None,
) -> pd.DataFrame:
    """Rank and performance of every run at one step.

    Parameters and errors are those of `correlate_runs`.

    Returns
    -------
    Columns ``role``, ``column``, ``task``, ``group``, ``metric``, ``step``, ``run``, ``rank`` and
    ``performance``: quantities that span decades and perplexities by their logarithm.
    """
    if metrics.empty or evaluation.empty:
        return pd.DataFrame(columns=list(POINTS))
    series = [*iter_rank_series(metrics, columns, component)]
    asked = measures or _one_of_each_order(evaluation)
    performance = performance_by_run(evaluation, asked)
    at = _step_of(series, performance, step)
    rows = [
        (role, column, *measure, at, run, ranks[at], reached[measure][at])
        for run, role, column, ranks in series
        for measure in asked
        if measure in (reached := performance.get(run, {}))
        if at in ranks.index and at in reached[measure].index
    ]
    points = pd.DataFrame(rows, columns=list(POINTS))
    return points.sort_values([*PLACE, "run"], kind="stable").reset_index(drop=True)


def _one_of_each_order(evaluation: pd.DataFrame) -> list[Measure]:
    """Loss, else perplexity, and accuracy of every task as a whole; every measure of features."""
    kinds = evaluation[KEY].drop_duplicates().sort_values(KEY).astype(str)
    there = [kind for kind in kinds.itertuples(index=False, name=None) if is_usual(kind)]
    return [
        (task, group, metric)
        for task, group, metric in there
        if metric != "perplexity" or (task, group, "loss") not in there
    ]


Ranks = Sequence[tuple[str, str, str, Series]]
Performance = Mapping[str, Mapping[Measure, Series]]


def _step_of(series: Ranks, performance: Performance, asked: int | None) -> int:
    """The step to compare at; runs that lack it are named."""
    steps: dict[str, set[int]] = {}
    for run, _, _, ranks in series:
        for reached in performance.get(run, {}).values():
            steps.setdefault(run, set()).update({*ranks.index} & {*reached.index})
    common = set.intersection(*steps.values()) if steps else set()
    if asked is None:
        if not common:
            raise WrongSettingError(
                "the runs have no step in common at which both rank and performance are known: "
                + _there(steps)
            )
        return max(common)
    without = sorted(run for run, there in steps.items() if asked not in there)
    if len(without) == len(steps):
        raise WrongSettingError(f"no run has both at `step` {asked}: {_there(steps)}")
    if without:
        message = f"left out, without rank or performance at step {asked}: {', '.join(without)}"
        warnings.warn(RankscopeWarning(message), stacklevel=3)
    return asked


def _there(steps: Mapping[str, set[int]]) -> str:
    """What can be asked for, as the end of a message."""
    known = sorted(set().union(*steps.values()))
    if not known:
        return "evaluate at the steps of the analysis"
    return f"choose a `step` at which some have: {', '.join(map(str, known))}"


@dataclass(frozen=True)
class _Sample:
    """Points of one scope: ``independent`` of them count, 0 where nothing follows from them."""

    scope: Scope
    x: Values
    y: Values
    blocks: NDArray[np.int_]
    independent: int
    groups: int


def _iter_found(
    points: pd.DataFrame, groups: Mapping[str, str]
) -> Iterator[tuple[Scope, str, float, float, float, float, int, int]]:
    """Yield scope, method, value, both ends of the interval, p, points and groups."""
    for sample in _samples(points, groups):
        for method in RANK_METHODS:
            value = rank_correlation(sample.x, sample.y, method)
            interval = rank_interval(value, method, sample.independent)
            p = math.nan
            if sample.independent:
                p = permutation_p(sample.x, sample.y, method, blocks=sample.blocks)
            yield sample.scope, method, value, *interval, p, len(sample.x), sample.groups


def _samples(points: pd.DataFrame, groups: Mapping[str, str]) -> list[_Sample]:
    x, y = (points[name].to_numpy(np.float64) for name in ("rank", "performance"))
    n, together = len(points), np.zeros(len(points), dtype=np.int_)
    if not groups:
        return [_Sample("all", x, y, together, n, 0)]
    of, names = pd.factorize(points.index.map(groups), sort=True)
    sizes = np.bincount(of)
    means = [np.bincount(of, one) / sizes for one in (x, y)]
    apart = [_apart(one, mean[of]) for one, mean in zip((x, y), means, strict=True)]
    several, inside = int((sizes > 1).sum()), sizes[of] > 1
    x_left, y_left = (one[inside] for one in apart)
    return [
        _Sample("all", x, y, together, 0, len(names)),
        _Sample("between", means[0], means[1], together[: len(names)], len(names), len(names)),
        _Sample("within", x_left, y_left, of[inside], int(inside.sum()) - several + 1, several),
    ]


def _apart(values: Values, centre: Values) -> Values:
    """Deviations, in which differences that are only rounding are none."""
    unit = STILL * np.abs(values).max(initial=0.0) or 1.0
    apart: Values = np.round((values - centre) / unit).astype(np.float64)
    return apart
