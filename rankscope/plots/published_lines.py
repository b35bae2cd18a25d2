"""The curves of a published study, in grey behind one's own."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.panel import GREY, Panel
from rankscope.plots.style import DASHED
from rankscope.plots.time_axis import log_steps
from rankscope.statistics.published_rows import LAST, published_scores, published_similarities

STUDY = "Weiss et al. 2025"
ALPHA, WIDTH = 0.55, 1.5
SQUEEZED = 4
_LOOKS: dict[object, tuple[LineStyleType, float]] = {
    ("decoder", "small"): ("-", WIDTH),
    ("relora", "small"): (DASHED, WIDTH),
    ("decoder", "tiny"): ("-", WIDTH / 2),
    ("relora", "tiny"): (DASHED, WIDTH / 2),
}
_METHODS: dict[object, str] = {"decoder": "full rank", "relora": "ReLoRA"}
_REMARKS: dict[object, str] = {
    "base_weight": " (without its live adapter)",
    "lora_update": " (holds rounding noise)",
}


def draw_published_spectra(panel: Panel, rows: pd.DataFrame | None, role: str) -> None:
    """Draw the published curves of one role, means over layers; None has none."""
    if rows is None:
        return
    for (model, scale, tensor), line in rows[rows["role"] == role].groupby(
        ["model", "scale", "tensor"]
    ):
        label = f"{STUDY}: {_METHODS[model]}{_REMARKS.get(tensor, '')}"
        _draw(panel, line, _LOOKS[model, scale], label)


def draw_published_scores(panel: Panel, evaluation: pd.DataFrame, where: dict[str, str]) -> None:
    """Draw the published accuracies of BLiMP or perplexities of Paloma, if they are of this kind.

    Models of other sizes have other scores, so both scales are drawn.
    """
    rows = published_scores(evaluation, where)
    for (model, scale), line in rows[rows["step"] <= LAST].groupby(["model", "scale"]):
        label = f"{STUDY}: {scale}, {_METHODS[model]}"
        _draw(panel, line, _LOOKS[model, scale], label)


def fit_published(figure: Figure, rows: pd.DataFrame, *, published: bool) -> Figure:
    """Give a figure over published curves a log axis of steps where its own rows end early.

    Otherwise lines that end at a quarter of the study's steps, or before, would be squeezed.
    """
    is_squeezed = published and SQUEEZED * float(rows["step"].max()) <= LAST
    return log_steps(figure) if is_squeezed else figure


def _draw(panel: Panel, line: pd.DataFrame, look: tuple[LineStyleType, float], label: str) -> None:
    dashes, width = look
    line = line.sort_values("step")
    panel.ax.plot(
        line["step"],
        line["value"],
        color=GREY,
        alpha=ALPHA,
        linestyle=dashes,
        linewidth=width,
        zorder=1.5,
    )
    panel.line(label, dashes, width=width, alpha=ALPHA)


def draw_published_similarities(panel: Panel, table: pd.DataFrame, *, at: str, half: str) -> None:
    """Draw the published biased CKA of one half of the layers with the last step.

    Both scales are drawn, under the names that the study's figure has: for spectra it exchanged
    those of one model, and for CKA nothing says whether it did.
    """
    rows = published_similarities(table, at=at, half=half)
    for (model, scale), line in rows.groupby(["model", "scale_printed"]):
        label = f"{STUDY} (six layers): {scale} as printed, {_METHODS[model]}"
        _draw(panel, line, _LOOKS[model, scale], label)
