"""Which rows of a published study can be compared with one's own tables."""

from __future__ import annotations

import pandas as pd

from rankscope.errors import WrongSettingError
from rankscope.published import weiss2025
from rankscope.statistics.row_choice import step_label

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


def published_spectra(table: pd.DataFrame, column: str, component: str) -> pd.DataFrame:
    """Published rows that a figure of this column and component can show.

    They are of the same metric, component, role and shape. Left out is what is only noise, and what
    may be of another scale (``doubt``); the base of ReLoRA stands in for its weight, and says so.

    Raises
    ------
    WrongSettingError
        If there are none, or the table does not count steps.
    """
    require_steps(table)
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


def published_scores(evaluation: pd.DataFrame, where: dict[str, str]) -> pd.DataFrame:
    """Published rows of one task, group and metric; empty where there are none."""
    require_steps(evaluation)
    if where["task"] == "blimp" and where["metric"] == "accuracy":
        rows = weiss2025("blimp")
        return rows[rows["group"] == where["group"]]
    is_paloma = "paloma" in where["task"].lower() and where["group"] == "all"
    if is_paloma and where["metric"] == "perplexity":
        return weiss2025("perplexity")
    return pd.DataFrame(columns=["step", "model", "scale", "value"])


def require_steps(table: pd.DataFrame) -> None:
    """Check that a table counts steps, as the study does."""
    if step_label(table) != "step":
        raise WrongSettingError(
            f"the published curves count steps, this table {step_label(table)}: leave out "
            "`published`"
        )


def has_published_similarities(table: pd.DataFrame, at: str) -> bool:
    """Whether similarities of such places with the last step are published."""
    return at in SIMILAR and step_label(table) == "step"


def published_similarities(table: pd.DataFrame, *, at: str, half: str) -> pd.DataFrame:
    """Published rows of features of a kind of place, of one half of the layers.

    Raises
    ------
    WrongSettingError
        If there are none, or the table does not count steps.
    """
    if at not in SIMILAR:
        raise WrongSettingError(
            f"nothing is published of the features of {at!r}: leave out `published`, or choose "
            f"{' or '.join(map(repr, SIMILAR))} as `at`"
        )
    require_steps(table)
    rows = weiss2025("cka")
    return rows[(rows["matrix"] == SIMILAR[at]) & (rows["layers"] == half)]
