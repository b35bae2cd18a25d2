"""The curves of a published study, in grey behind one's own."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.errors import WrongSettingError
from rankscope.plots.panel import GREY, Panel
from rankscope.plots.time_axis import log_steps, step_label
from rankscope.published import weiss2025

STUDY = "Weiss et al. 2025"
ALPHA, WIDTH = 0.55, 1.5
SHAPES = {
    ("tiny", "down"): (96, 384),
    ("tiny", "v"): (32, 96),
    ("tiny", "o"): (96, 96),
    ("tiny", "ov-published"): (8, 96),
    ("small", "down"): (384, 1536),
    ("small", "v"): (128, 384),
    ("small", "o"): (384, 384),
    ("small", "ov-published"): (32, 384),
}
"""Rows and columns of the study's matrices by scale and role, or component of a circuit."""
METRICS = {"per": "per"} | dict.fromkeys(
    ("condition_number", "condition_number_raw"), "condition_number"
)
SIMILAR = {"mlp": "swiglu.w_2"}
"""The study's projections whose outputs are the features of these places."""
LAST = 20_000
"""Step at which the study ends; some evaluations go on beyond it."""
SQUEEZED = 4
_LOOKS: dict[object, tuple[LineStyleType, float]] = {
    ("decoder", "small"): ("-", WIDTH),
    ("relora", "small"): ((0, (4, 1.5)), WIDTH),
    ("decoder", "tiny"): ("-", WIDTH / 2),
    ("relora", "tiny"): ((0, (4, 1.5)), WIDTH / 2),
}
_METHODS: dict[object, str] = {"decoder": "full rank", "relora": "ReLoRA"}
_REMARKS: dict[object, str] = {
    "base_weight": " (without its live adapter)",
    "lora_update": " (holds rounding noise)",
}


def published_spectra(table: pd.DataFrame, column: str, component: str) -> pd.DataFrame:
    """Published rows that a figure of this column and component can show.

    They are of the same metric, component, role and shape. Left out is what is only noise, and what
    may be of another scale (``doubt``); the base of ReLoRA stands in for its weight, and says so.

    Raises
    ------
    WrongSettingError
        If there are none, or the table does not count steps.
    """
    _require_steps(table)
    rows = weiss2025("spectra").query("layers == 'all'")
    alike = {component, "base"} if component == "weight" else {component}
    rows = rows[
        rows["component"].isin(alike)
        & (rows["metric"] == METRICS.get(column, ""))
        & rows["doubt"].isin(["", "holds rounding noise"])
    ]
    there = table[table["component"] == component]
    shapes = set(zip(there["role"], there["rows"], there["cols"], strict=True))
    places = [
        (role, *SHAPES[scale, kind if kind == "ov-published" else role]) in shapes
        for scale, role, kind in zip(rows["scale"], rows["role"], rows["component"], strict=True)
    ]
    if not any(places):
        raise WrongSettingError(
            f"nothing is published of {column!r} of {component!r} in these shapes: leave out "
            "`published`, or draw `per` or `condition_number` of weights of the study's models"
        )
    return rows[places]


def has_published_spectra(table: pd.DataFrame, column: str, component: str) -> bool:
    """Whether a figure of this column and component has published rows to show."""
    try:
        return not published_spectra(table, column, component).empty
    except WrongSettingError:
        return False


def has_published_scores(evaluation: pd.DataFrame) -> bool:
    """Whether accuracies or perplexities of one of the tasks are published."""
    if step_label(evaluation) != "step":
        return False
    kinds = evaluation[["task", "group", "metric"]].drop_duplicates().to_dict("records")
    return any(
        not published_scores(evaluation, {str(k): str(v) for k, v in kind.items()}).empty
        for kind in kinds
    )


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


def published_scores(evaluation: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    """Published rows of one task, group and metric; empty where there are none."""
    _require_steps(evaluation)
    if where["task"] == "blimp" and where["metric"] == "accuracy":
        rows = weiss2025("blimp")
        return rows[rows["group"] == where["group"]]
    is_paloma = "paloma" in where["task"].lower() and where["group"] == "all"
    if is_paloma and where["metric"] == "perplexity":
        return weiss2025("perplexity")
    return pd.DataFrame(columns=["step", "model", "scale", "value"])


def fit_published(figure: Figure, rows: pd.DataFrame, *, published: bool) -> Figure:
    """Give a figure over published curves a log axis of steps where its own rows end early.

    Otherwise lines that end at a quarter of the study's steps, or before, would be squeezed.
    """
    is_squeezed = published and SQUEEZED * float(rows["step"].max()) <= LAST
    return log_steps(figure) if is_squeezed else figure


def _require_steps(table: pd.DataFrame) -> None:
    if step_label(table) != "step":
        raise WrongSettingError(
            f"the published curves count steps, this table {step_label(table)}: leave out "
            "`published`"
        )


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


def has_published_similarities(table: pd.DataFrame, at: str) -> bool:
    """Whether similarities of such places with the last step are published."""
    return at in SIMILAR and step_label(table) == "step"


def draw_published_similarities(panel: Panel, table: pd.DataFrame, *, at: str, half: str) -> None:
    """Draw the published biased CKA of one half of the layers with the last step.

    Both scales are drawn, under the names that the study's figure has: for spectra it exchanged
    those of one model, and for CKA nothing says whether it did.
    """
    if at not in SIMILAR:
        raise WrongSettingError(
            f"nothing is published of the features of {at!r}: leave out `published`, or choose "
            f"{' or '.join(map(repr, SIMILAR))} as `at`"
        )
    _require_steps(table)
    rows = weiss2025("cka")
    rows = rows[(rows["matrix"] == SIMILAR[at]) & (rows["layers"] == half)]
    for (model, scale), line in rows.groupby(["model", "scale_printed"]):
        label = f"{STUDY} (six layers): {scale} as printed, {_METHODS[model]}"
        _draw(panel, line, _LOOKS[model, scale], label)
