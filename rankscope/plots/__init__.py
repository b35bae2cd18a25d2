"""Figures from the tables: axes-level functions draw on your axes, figure-level ones make a figure.

Axes-level (take ``ax``, return it): `metric`, `loss`, `spectrum`, `heatmap`, `merged_rank`,
`adapter_rank`, `subspaces`, `score`, `correlation`.
Figure-level (return a matplotlib ``Figure``, as wide as `paper_style` says): `per`,
`condition_number`, `differences`, `losses`, `update_spectra`, `heatmaps`, `merged_ranks`,
`adapter_ranks`, `performance`, `blimp_phenomena`, `rank_and_performance`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankscope.plots.adapter_cycles import adapter_rank, adapter_ranks, subspaces
    from rankscope.plots.chance_bands import differences
    from rankscope.plots.correlations import correlation, rank_and_performance
    from rankscope.plots.decay import spectrum, update_spectra
    from rankscope.plots.evaluation_curves import blimp_phenomena, performance, score
    from rankscope.plots.figure_files import save_figure
    from rankscope.plots.gallery import FIGURES
    from rankscope.plots.maps import heatmap, heatmaps
    from rankscope.plots.metric_lines import metric
    from rankscope.plots.role_panels import condition_number, per
    from rankscope.plots.staircases import merged_rank, merged_ranks
    from rankscope.plots.style import WIDTHS, paper_style
    from rankscope.plots.training_curves import loss, losses

__all__ = [
    "FIGURES",
    "WIDTHS",
    "adapter_rank",
    "adapter_ranks",
    "blimp_phenomena",
    "condition_number",
    "correlation",
    "differences",
    "heatmap",
    "heatmaps",
    "loss",
    "losses",
    "merged_rank",
    "merged_ranks",
    "metric",
    "paper_style",
    "per",
    "performance",
    "rank_and_performance",
    "save_figure",
    "score",
    "spectrum",
    "subspaces",
    "update_spectra",
]

_MODULES = {
    "FIGURES": "gallery",
    "WIDTHS": "style",
    "adapter_rank": "adapter_cycles",
    "adapter_ranks": "adapter_cycles",
    "blimp_phenomena": "evaluation_curves",
    "condition_number": "role_panels",
    "correlation": "correlations",
    "differences": "chance_bands",
    "heatmap": "maps",
    "heatmaps": "maps",
    "loss": "training_curves",
    "losses": "training_curves",
    "merged_rank": "staircases",
    "merged_ranks": "staircases",
    "metric": "metric_lines",
    "paper_style": "style",
    "per": "role_panels",
    "performance": "evaluation_curves",
    "rank_and_performance": "correlations",
    "save_figure": "figure_files",
    "score": "evaluation_curves",
    "spectrum": "decay",
    "subspaces": "adapter_cycles",
    "update_spectra": "decay",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: matplotlib takes a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankscope.plots.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
