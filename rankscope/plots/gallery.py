"""`FIGURES`: every figure by its name, drawn from the results of an analysis or an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import copy
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError
from rankscope.plots.adapter_cycles import adapter_ranks, has_subspaces, has_varied_ranks
from rankscope.plots.correlations import has_correlations, rank_and_performance
from rankscope.plots.decay import update_spectra
from rankscope.plots.evaluation_curves import blimp_phenomena, main_measures, performance, phenomena
from rankscope.plots.maps import heatmaps
from rankscope.plots.role_panels import condition_number, per
from rankscope.plots.staircases import merged_ranks
from rankscope.plots.training_curves import has_loss, losses
from rankscope.results.results import Results
from rankscope.statistics.correlation import correlate
from rankscope.statistics.row_choice import distinct, has_component

PLURALS = {"weight": "weights", "update": "updates", "adapter": "adapters", "merge": "merges"}
PLURALS |= {"cumulative_update": "cumulative-updates", "gradient": "gradients"}
PLURALS |= {"merged_total": "merged-totals", "ov_update": "ov-updates", "factor": "factors"}
PLURALS |= {"qk_update": "qk-updates"}
PER, KAPPA, MAP = "per-", "condition-numbers-", "heatmap-"


@dataclass(frozen=True)
class GalleryFigure:
    """A figure that may be drawn from results.

    Attributes
    ----------
    draw
        Draws it; raises `RankscopeError` where the results do not allow it.
    has_data
        Whether the results hold what it needs.
    drawn_from
        What it needs, in words, to say why it was left out.
    component
        Which matrices it shows; None for figures of something else.
    """

    draw: Callable[[Results], Figure]
    has_data: Callable[[Results], bool]
    drawn_from: str
    component: str | None = None

    def __call__(self, results: Results) -> Figure | None:
        """Draw the figure; None where the results hold nothing to draw it from."""
        return self.draw(results) if self.has_data(results) else None


def figures_of(component: str) -> dict[str, GalleryFigure]:
    """The figures of one component of the matrices, whatever it is, by name."""
    plural = PLURALS.get(component, component)
    kappa = "condition_number" if component in ("weight", "base") else "condition_number_r"

    def figure(column: str, draw: Callable[[Results], Figure]) -> GalleryFigure:
        def has_data(results: Results) -> bool:
            return _has_value(results.metrics, component, column)

        return GalleryFigure(draw, has_data, plural.replace("-", " "), component)

    return {
        f"per-{plural}": figure("per", lambda r: per(r.metrics, component)),
        f"condition-numbers-{plural}": figure(
            kappa, lambda r: condition_number(r.metrics, component)
        ),
        f"{component.replace('_', '-')}-spectra": figure(
            "per", lambda r: update_spectra(r, component=component)
        ),
        f"heatmap-per-{plural}": figure("per", lambda r: heatmaps(r.metrics, component=component)),
    }


def _has_value(table: pd.DataFrame, component: str, column: str) -> bool:
    if not has_component(table, component):
        return False
    return bool(table.loc[table["component"] == component, column].notna().any())


def selected(
    results: Results, *, runs: Collection[str] = (), roles: Collection[str] = ()
) -> Results:
    """The results of some runs and roles; of all where none are named.

    Raises
    ------
    WrongSettingError
        If the results have no such run or role.
    """
    tables = {name: getattr(results, name) for name in ("metrics", "evaluation", "training")}
    _check("run", runs, (table["run"] for table in tables.values() if "run" in table))
    _check("role", roles, [results.metrics["role"]])
    for name, table in tables.items():
        for column, wanted in (("run", runs), ("role", roles)):
            if wanted and column in table.columns:
                tables[name] = tables[name][tables[name][column].isin(wanted)]
    return _with_tables(results, **tables)


def gallery(
    results: Results, *, only: Collection[str] = (), components: Collection[str] = ()
) -> dict[str, GalleryFigure]:
    """Figures to draw: those that are named, those of some components, or else `FIGURES`.

    Raises
    ------
    WrongSettingError
        If there is no such figure, or the results have no such component.
    """
    there = distinct(results.metrics, "component")
    _check("component", components, [results.metrics["component"]])
    every = dict(FIGURES)
    for component in there:
        every |= figures_of(str(component))
    if only:
        _check("figure", only, [list(every)])
        return {name: every[name] for name in only}
    if components:
        return {name: figure for name, figure in every.items() if figure.component in components}
    return FIGURES


def _check(what: str, names: Collection[str], known: Iterable[Iterable[object]]) -> None:
    there = dict.fromkeys(str(name) for column in known for name in column)
    for name in names:
        if name not in there:
            raise WrongSettingError(f"unknown {what} {name!r}: choose from {', '.join(there)}")


def _with_tables(results: Results, **tables: pd.DataFrame) -> Results:
    """The same results with other tables in place of those that are read."""
    changed = copy(results)
    vars(changed).update(tables)
    return changed


def _default(component: str, *kinds: str) -> dict[str, GalleryFigure]:
    """The figures of a component that are drawn without being asked for."""
    return {n: figure for n, figure in figures_of(component).items() if n.startswith(kinds)}


def _alone(results: Results) -> Results:
    """Results without the adapters of runs that have weights, whose figures would show both."""
    table = results.metrics
    whole = table["run"].isin(table.loc[table["component"] == "weight", "run"].unique())
    return _with_tables(results, metrics=table[~(whole & (table["component"] == "adapter"))])


def _if_alone(figure: GalleryFigure) -> GalleryFigure:
    return replace(
        figure,
        draw=lambda results: figure.draw(_alone(results)),
        has_data=lambda results: figure.has_data(_alone(results)),
        drawn_from="adapters alone",
    )


def _runs(results: Results, table: pd.DataFrame) -> list[str]:
    """Names of the runs that were analysed or are in the table, to colour them alike everywhere."""
    return [str(run) for run in {*results.metrics["run"].dropna(), *table["run"].dropna()}]


def _correlated(results: Results) -> pd.DataFrame:
    return correlate(results.metrics, results.evaluation)


FIGURES: dict[str, GalleryFigure] = {
    "loss": GalleryFigure(
        lambda r: losses(r.training, runs=_runs(r, r.training)),
        lambda r: has_loss(r.training),
        "logged training loss",
    ),
    **_default("weight", PER, KAPPA, MAP),
    "condition-numbers-90-weights": GalleryFigure(
        lambda r: condition_number(r.metrics, column="condition_number_90"),
        lambda r: _has_value(r.metrics, "weight", "condition_number_90"),
        "weights",
        "weight",
    ),
    **figures_of("update"),
    **_default("cumulative_update", PER, MAP),
    **{n: _if_alone(figure) for n, figure in _default("adapter", PER, KAPPA, MAP).items()},
    **_default("gradient", PER),
    **_default("ov", PER),
    **_default("qk", PER),
    "merged-rank": GalleryFigure(
        lambda r: merged_ranks(r.metrics),
        lambda r: _has_value(r.metrics, "merged_total", "numerical_rank"),
        "recorded merges",
        "merged_total",
    ),
    "adapter-ranks": GalleryFigure(
        adapter_ranks,
        lambda r: has_varied_ranks(r.metrics) or has_subspaces(r.training),
        "adapters of different ranks and no captured energy",
    ),
    "performance": GalleryFigure(
        lambda r: performance(r.evaluation, runs=_runs(r, r.evaluation)),
        lambda r: bool(main_measures(r.evaluation)),
        "perplexity, loss or accuracy",
    ),
    "blimp-phenomena": GalleryFigure(
        lambda r: blimp_phenomena(r.evaluation, runs=_runs(r, r.evaluation)),
        lambda r: bool(phenomena(r.evaluation)),
        "accuracies by phenomenon",
    ),
    "rank-and-performance": GalleryFigure(
        lambda r: rank_and_performance(_correlated(r)),
        lambda r: has_component(r.metrics, "weight") and has_correlations(_correlated(r)),
        "weights and performance that vary at 4 common steps or more",
    ),
}
"""Figures of the results by file name."""
