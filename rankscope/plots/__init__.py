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
    from rankscope.plots.rate_curves import learning_rate, learning_rates
    from rankscope.plots.role_panels import condition_number, outliers, per, tail_index
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
    from rankscope.plots.training_curves import loss, losses

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

_MODULES = {
    "FIGURES": "gallery",
    "WIDTHS": "style",
    "adapter_rank": "adapter_cycles",
    "adapter_ranks": "adapter_cycles",
    "blimp_phenomena": "evaluation_curves",
    "by_half": "half_panels",
    "condition_number": "role_panels",
    "correlation": "correlations",
    "depth_profiles": "depth_panels",
    "depth_slope": "depth_panels",
    "differences": "chance_bands",
    "feature": "feature_lines",
    "feature_map": "layer_maps",
    "feature_maps": "layer_maps",
    "features": "feature_lines",
    "features_against_weights": "feature_scatter",
    "head_map": "circuit_maps",
    "head_maps": "circuit_maps",
    "heatmap": "maps",
    "heatmaps": "maps",
    "histogram": "histograms",
    "input_energies": "energy_lines",
    "input_energy": "energy_lines",
    "intruder_count": "intruder_maps",
    "intruders": "intruder_maps",
    "layer_halves": "half_panels",
    "layer_profile": "depth_panels",
    "layer_similarities": "similarity_matrices",
    "layer_similarity": "similarity_matrices",
    "learning_rate": "rate_curves",
    "learning_rates": "rate_curves",
    "log_steps": "time_axis",
    "loss": "training_curves",
    "losses": "training_curves",
    "merge_overlap": "merge_alignment",
    "merge_overlaps": "merge_alignment",
    "merged_rank": "staircases",
    "merged_ranks": "staircases",
    "metric": "metric_lines",
    "outliers": "role_panels",
    "overlap": "subspace_lines",
    "overlaps": "subspace_lines",
    "paper_style": "style",
    "per": "role_panels",
    "performance": "evaluation_curves",
    "rank_against_performance": "run_scatter",
    "rank_and_performance": "correlations",
    "run_similarities": "similarity_matrices",
    "save_figure": "figure_files",
    "score": "evaluation_curves",
    "similarities": "similarity_lines",
    "similarity": "similarity_lines",
    "spectrum": "decay",
    "subspaces": "adapter_cycles",
    "tail_index": "role_panels",
    "update_histograms": "histograms",
    "update_spectra": "decay",
}


def __getattr__(name: str) -> Any:
    """Import a function when it is asked for: matplotlib takes a second."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rankscope.plots.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
