"""The figures of what layers carry, for one kind of place, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import get_args

import pandas as pd
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError
from rankscope.plots.feature_lines import features
from rankscope.plots.gallery_figure import GalleryFigure
from rankscope.plots.layer_maps import feature_maps
from rankscope.plots.similarity_lines import PUBLISHED, WITH, Measured, OverSteps, similarities
from rankscope.plots.similarity_matrices import layer_similarities, run_similarities
from rankscope.results.results import Results
from rankscope.statistics.compared_features import both_sides
from rankscope.statistics.feature_rows import rows_at
from rankscope.statistics.published_rows import has_published_similarities
from rankscope.statistics.quantities import FEATURE_QUANTITIES

PLURALS = {"block": "features", "attention": "attention-outputs", "mlp": "mlp-outputs"}
DEFAULT = (
    *("rankme", "alpha-req", "mean-cosine", "heatmap-rankme"),
    *("cka-last-step", "cka-previous-step", "cka-layers", "cka-runs", "cka-run-matrices"),
)
"""Beginnings of the names of figures that are drawn without being asked for."""
OTHERS = ("rankme", "cka-last-step")
"""The same, of places other than the outputs of blocks."""
MEASURES: tuple[Measured, ...] = get_args(Measured)
_CALLED = {"rankme": "RankMe", "per": "PER", "alpha_req": r"$\alpha$-ReQ"}
_CALLED |= {"cka": "CKA", "cka_biased": "Biased CKA", "svcca": "SVCCA", "pwcca": "PWCCA"}
_NAMES: dict[OverSteps, str] = {"last": "last-step", "previous": "previous-step", "runs": "runs"}


def figures_of_features(kind: str) -> dict[str, GalleryFigure]:
    """All figures of one kind of place: ``block``, ``attention``, ``mlp``, by name."""
    plural = PLURALS.get(kind, f"{kind}-outputs")
    words = plural.replace("-", " ").replace("mlp", "MLP")
    figures: dict[str, GalleryFigure] = {}
    for column in FEATURE_QUANTITIES:
        name = f"{column.replace('_', '-')}-{plural}"
        figures[name] = _of_features(column, kind, words)
        figures[f"heatmap-{name}"] = _map(column, kind, words)
    for measure in MEASURES:
        begin = measure.replace("_", "-")
        for comparison, name in _NAMES.items():
            figures[f"{begin}-{name}-{plural}"] = _over_steps(measure, comparison, kind, words)
        figures[f"{begin}-layers-{plural}"] = _matrices(measure, "layers", kind, words)
        figures[f"{begin}-run-matrices-{plural}"] = _matrices(measure, "runs", kind, words)
    return figures


def default_features(kind: str) -> dict[str, GalleryFigure]:
    """The figures of one kind of place that are drawn without being asked for."""
    begins, plural = DEFAULT if kind == "block" else OTHERS, PLURALS.get(kind, f"{kind}-outputs")
    every = figures_of_features(kind)
    return {f"{begin}-{plural}": every[f"{begin}-{plural}"] for begin in begins}


def _of_features(column: str, kind: str, words: str) -> GalleryFigure:
    name = column.removesuffix("_centred")
    called = _CALLED.get(name, name.replace("_", " ").capitalize())
    return GalleryFigure(
        lambda r, hue: features(r.representations, column, at=kind, hue=hue),
        lambda r: _has_value(r.representations, column, kind),
        f"{words}, which `represent` measures",
        table=attrgetter("representations"),
        title=f"{called} of {'centred ' if name != column else ''}{words}",
    )


def _map(column: str, kind: str, words: str) -> GalleryFigure:
    lines = _of_features(column, kind, words)
    return replace(
        lines,
        draw=lambda r, hue: feature_maps(r.representations, column, at=kind, hue=hue),
        title=f"{lines.title}, by layer and step",
    )


def _over_steps(measure: Measured, comparison: OverSteps, kind: str, words: str) -> GalleryFigure:
    def draw(results: Results, hue: str, published: bool = False) -> Figure:
        return similarities(
            results.similarities,
            PUBLISHED if published else measure,
            comparison=comparison,
            at=kind,
            hue=hue,
            published=published,
        )

    def has_published(results: Results) -> bool:
        return made.has_data(results) and has_published_similarities(results.similarities, kind)

    made = _compared(draw, measure, comparison, at=kind, what=f"{words} {WITH[comparison]}")
    is_of_kind = comparison == "last" and measure in ("cka", PUBLISHED)
    return replace(made, has_published=has_published) if is_of_kind else made


def _matrices(measure: Measured, comparison: str, kind: str, words: str) -> GalleryFigure:
    def draw(results: Results, hue: str) -> Figure:
        if comparison == "layers":
            return layer_similarities(results.similarities, measure, at=kind, hue=hue)
        return run_similarities(results.similarities, measure, at=kind, hue=hue)

    of = "two layers" if comparison == "layers" else "two runs at one step"
    return _compared(draw, measure, comparison, at=kind, what=f"{words} of {of}")


def _compared(
    draw: Callable[..., Figure],
    measure: Measured,
    comparison: str,
    *,
    at: str,
    what: str,
) -> GalleryFigure:
    """A figure of one comparison; its caption names the runs on both sides."""
    return GalleryFigure(
        draw,
        lambda r: _has_value(r.similarities, measure, at, comparison),
        f"{what}, which `represent` measures if `compare` names {comparison!r}",
        table=lambda r: both_sides(rows_at(r.similarities, at=at, comparison=comparison)),
        title=f"{_CALLED[measure]} of {what}",
    )


def _has_value(table: pd.DataFrame, column: str, at: str, comparison: str | None = None) -> bool:
    try:
        return bool(rows_at(table, at=at, comparison=comparison)[column].notna().any())
    except WrongSettingError:
        return False
