"""Every figure by its name, each drawn from the results of an analysis or an evaluation."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from rankscope.plots.adapter_cycles import adapter_ranks, has_varied_ranks
from rankscope.plots.correlations import has_correlations, rank_and_performance
from rankscope.plots.decay import update_spectra
from rankscope.plots.evaluation_curves import blimp_phenomena, main_measures, performance, phenomena
from rankscope.plots.maps import heatmaps
from rankscope.plots.merge_curves import merged_ranks
from rankscope.plots.panels import condition_number, per
from rankscope.plots.subspace_shares import has_subspaces
from rankscope.plots.training_curves import has_loss, losses
from rankscope.results.results import Results
from rankscope.statistics.correlation import correlate
from rankscope.statistics.row_choice import has_component


def _losses(results: Results) -> Figure | None:
    if not has_loss(results.training):
        return None
    return losses(results.training, runs=runs_of(results, results.training))


def _performance(results: Results) -> Figure | None:
    if not main_measures(results.evaluation):
        return None
    return performance(results.evaluation, runs=runs_of(results, results.evaluation))


def _blimp_phenomena(results: Results) -> Figure | None:
    if not phenomena(results.evaluation):
        return None
    return blimp_phenomena(results.evaluation, runs=runs_of(results, results.evaluation))


def _rank_and_performance(results: Results) -> Figure | None:
    if not has_component(results.metrics, "weight"):
        return None
    correlations = correlate(results.metrics, results.evaluation)
    return rank_and_performance(correlations) if has_correlations(correlations) else None


def runs_of(results: Results, table: pd.DataFrame) -> list[str]:
    """Names of the runs that were analysed or are in the table, to colour them alike everywhere."""
    return [str(run) for run in {*results.metrics["run"].dropna(), *table["run"].dropna()}]


def _adapter_ranks(results: Results) -> Figure | None:
    if has_varied_ranks(results.metrics) or has_subspaces(results.training):
        return adapter_ranks(results)
    return None


def _if_any(
    table: pd.DataFrame, component: str, column: str, draw: Callable[[pd.DataFrame], Figure]
) -> Figure | None:
    """Draw from the metrics table, or None where no matrix of the component has a value."""
    if not has_component(table, component):
        return None
    has_value = table.loc[table["component"] == component, column].notna().any()
    return draw(table) if has_value else None


def _if_alone(
    results: Results, component: str, column: str, draw: Callable[[pd.DataFrame], Figure]
) -> Figure | None:
    """Draw a component of the runs that have no weights, whose figures would show it too."""
    table = results.metrics
    whole = table["run"].isin(table.loc[table["component"] == "weight", "run"].unique())
    alone = table[~(whole & (table["component"] == component))]
    return _if_any(alone, component, column, draw)


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "loss": _losses,
    "per-weights": lambda r: _if_any(r.metrics, "weight", "per", per),
    "per-updates": lambda r: _if_any(r.metrics, "update", "per", lambda t: per(t, "update")),
    "per-cumulative-updates": lambda r: _if_any(
        r.metrics, "cumulative_update", "per", lambda t: per(t, "cumulative_update")
    ),
    "per-adapters": lambda r: _if_alone(r, "adapter", "per", lambda t: per(t, "adapter")),
    "per-gradients": lambda r: _if_any(r.metrics, "gradient", "per", lambda t: per(t, "gradient")),
    "per-ov": lambda r: _if_any(r.metrics, "ov", "per", lambda t: per(t, "ov")),
    "condition-numbers-weights": lambda r: _if_any(
        r.metrics, "weight", "condition_number", condition_number
    ),
    "condition-numbers-90-weights": lambda r: _if_any(
        r.metrics,
        "weight",
        "condition_number_90",
        lambda t: condition_number(t, column="condition_number_90"),
    ),
    "condition-numbers-updates": lambda r: _if_any(
        r.metrics, "update", "condition_number_r", lambda t: condition_number(t, "update")
    ),
    "condition-numbers-adapters": lambda r: _if_alone(
        r, "adapter", "condition_number_r", lambda t: condition_number(t, "adapter")
    ),
    "update-spectra": lambda r: _if_any(r.metrics, "update", "per", lambda _: update_spectra(r)),
    "merged-rank": lambda r: _if_any(r.metrics, "merged_total", "numerical_rank", merged_ranks),
    "adapter-ranks": _adapter_ranks,
    "heatmap-per-weights": lambda r: _if_any(r.metrics, "weight", "per", heatmaps),
    "heatmap-per-updates": lambda r: _if_any(
        r.metrics, "update", "per", lambda t: heatmaps(t, component="update")
    ),
    "heatmap-per-cumulative-updates": lambda r: _if_any(
        r.metrics, "cumulative_update", "per", lambda t: heatmaps(t, component="cumulative_update")
    ),
    "heatmap-per-adapters": lambda r: _if_alone(
        r, "adapter", "per", lambda t: heatmaps(t, component="adapter")
    ),
    "performance": _performance,
    "blimp-phenomena": _blimp_phenomena,
    "rank-and-performance": _rank_and_performance,
}
"""Figure of the results by file name; None where they hold nothing to draw it from."""

DRAWN_FROM = {
    "loss": "logged training loss",
    "per-weights": "weights",
    "per-updates": "updates",
    "per-cumulative-updates": "cumulative updates",
    "per-adapters": "adapters alone",
    "per-gradients": "gradients",
    "per-ov": "OV circuits",
    "condition-numbers-weights": "weights",
    "condition-numbers-90-weights": "weights",
    "condition-numbers-updates": "updates",
    "condition-numbers-adapters": "adapters alone",
    "update-spectra": "updates",
    "merged-rank": "recorded merges",
    "adapter-ranks": "adapters of different ranks and no captured energy",
    "heatmap-per-weights": "weights",
    "heatmap-per-updates": "updates",
    "heatmap-per-cumulative-updates": "cumulative updates",
    "heatmap-per-adapters": "adapters alone",
    "performance": "perplexity, loss or accuracy",
    "blimp-phenomena": "accuracies by phenomenon",
    "rank-and-performance": "weights and performance that vary at 4 common steps or more",
}
"""What a figure needs, to say why it was left out."""
