"""Figures from the tables: axes-level functions draw on your axes, figure-level ones make a figure.

Axes-level (take ``ax``, return it): `metric`, `loss`, `spectrum`, `heatmap`, `merged_rank`,
`adapter_rank`, `subspaces`, `score`, `correlation`, `overlap`, `merge_overlap`, `intruder_count`,
`head_map`, `layer_profile`, `depth_slope`, `layer_halves`, `histogram`, `learning_rate`,
`feature`, `feature_map`, `similarity`, `layer_similarity`, `input_energy`.
Figure-level (return a matplotlib ``Figure``, as wide as `paper_style` says): `per`,
`condition_number`, `differences`, `losses`, `update_spectra`, `heatmaps`, `merged_ranks`,
`adapter_ranks`, `performance`, `blimp_phenomena`, `rank_and_performance`, `tail_index`,
`outliers`, `overlaps`, `merge_overlaps`, `intruders`, `head_maps`, `depth_profiles`, `by_half`,
`update_histograms`, `learning_rates`, `features`, `feature_maps`, `features_against_weights`,
`similarities`, `layer_similarities`, `run_similarities`, `input_energies`. `log_steps` gives any of
them a log axis of steps.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankscope.plots.adapter_cycles import adapter_rank, adapter_ranks, subspaces
    from rankscope.plots.chance_bands import differences
    from rankscope.plots.circuit_maps import head_map, head_maps
    from rankscope.plots.correlations import correlation, rank_and_performance
    from rankscope.plots.decay import spectrum, update_spectra
    from rankscope.plots.depth_panels import depth_profiles, depth_slope, layer_profile
    from rankscope.plots.energy_lines import input_energies, input_energy
    from rankscope.plots.evaluation_curves import blimp_phenomena, performance, score
    from rankscope.plots.feature_lines import feature, features
    from rankscope.plots.feature_scatter import features_against_weights
    from rankscope.plots.figure_files import save_figure
    from rankscope.plots.gallery import FIGURES
    from rankscope.plots.half_panels import by_half, layer_halves
    from rankscope.plots.histograms import histogram, update_histograms
    from rankscope.plots.intruder_maps import intruder_count, intruders
    from rankscope.plots.layer_maps import feature_map, feature_maps
    from rankscope.plots.maps import heatmap, heatmaps
    from rankscope.plots.merge_alignment import merge_overlap, merge_overlaps
    from rankscope.plots.metric_lines import metric
    from rankscope.plots.role_panels import condition_number, outliers, per, tail_index
    from rankscope.plots.run_scatter import rank_against_performance
    from rankscope.plots.similarity_lines import similarities, similarity
    from rankscope.plots.similarity_matrices import (
        layer_similarities,
        layer_similarity,
        run_similarities,
    )
    from rankscope.plots.staircases import merged_rank, merged_ranks
    from rankscope.plots.style import WIDTHS, paper_style
    from rankscope.plots.subspace_lines import overlap, overlaps
    from rankscope.plots.time_axis import log_steps
    from rankscope.plots.training_curves import learning_rate, learning_rates, loss, losses

__all__ = [
    "FIGURES",
    "WIDTHS",
    "adapter_rank",
    "adapter_ranks",
    "blimp_phenomena",
    "by_half",
    "condition_number",
    "correlation",
    "depth_profiles",
    "depth_slope",
    "differences",
    "feature",
    "feature_map",
    "feature_maps",
    "features",
    "features_against_weights",
    "head_map",
    "head_maps",
    "heatmap",
    "heatmaps",
    "histogram",
    "input_energies",
    "input_energy",
    "intruder_count",
    "intruders",
    "layer_halves",
    "layer_profile",
    "layer_similarities",
    "layer_similarity",
    "learning_rate",
    "learning_rates",
    "log_steps",
    "loss",
    "losses",
    "merge_overlap",
    "merge_overlaps",
    "merged_rank",
    "merged_ranks",
    "metric",
    "outliers",
    "overlap",
    "overlaps",
    "paper_style",
    "per",
    "performance",
    "rank_against_performance",
    "rank_and_performance",
    "run_similarities",
    "save_figure",
    "score",
    "similarities",
    "similarity",
    "spectrum",
    "subspaces",
    "tail_index",
    "update_histograms",
    "update_spectra",
]

_HOMES = {
    "adapter_cycles": "adapter_rank adapter_ranks subspaces",
    "chance_bands": "differences",
    "circuit_maps": "head_map head_maps",
    "correlations": "correlation rank_and_performance",
    "decay": "spectrum update_spectra",
    "depth_panels": "depth_profiles depth_slope layer_profile",
    "energy_lines": "input_energies input_energy",
    "evaluation_curves": "blimp_phenomena performance score",
    "feature_lines": "feature features",
    "feature_scatter": "features_against_weights",
    "figure_files": "save_figure",
    "gallery": "FIGURES",
    "half_panels": "by_half layer_halves",
    "histograms": "histogram update_histograms",
    "intruder_maps": "intruder_count intruders",
    "layer_maps": "feature_map feature_maps",
    "maps": "heatmap heatmaps",
    "merge_alignment": "merge_overlap merge_overlaps",
    "metric_lines": "metric",
    "role_panels": "condition_number outliers per tail_index",
    "run_scatter": "rank_against_performance",
    "similarity_lines": "similarities similarity",
    "similarity_matrices": "layer_similarities layer_similarity run_similarities",
    "staircases": "merged_rank merged_ranks",
    "style": "WIDTHS paper_style",
    "subspace_lines": "overlap overlaps",
    "time_axis": "log_steps",
    "training_curves": "learning_rate learning_rates loss losses",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: matplotlib takes a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankscope.plots.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
