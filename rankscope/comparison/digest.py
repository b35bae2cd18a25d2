"""A comparison in a few lines and a table of cells, for a terminal or a paper."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.run import ranges
from rankscope.statistics.quantities import quantity
from rankscope.statistics.row_choice import in_order

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.comparison.compare import Comparison

Cells = list[tuple[str, ...]]
MOMENTS = {
    "step": "at the last step",
    "last": "at their last steps",
    "loss": "at equal loss",
    "distance": "at equal distance from the start",
}
"""Where runs are compared, in order, and in words."""
REPLICATES_ADVICE = (
    "one run on either side: the spread is that over layers alone, and other seeds may differ more"
)


def latest(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last step, and those at equal loss and distance."""
    steps = metrics.loc[metrics["at"] == "step", "step_a"]
    is_last = (metrics["at"] != "step") | (metrics["step_a"] == steps.max())
    rows: pd.DataFrame = metrics[is_last]
    return rows


def difference_cells(comparison: Comparison, *, everything: bool = False) -> Cells:
    """The heading and one row per difference of a role: at the last step, equal loss and distance.

    Parameters
    ----------
    comparison
        What `compare` found.
    everything
        Whether to list all; otherwise only what differs.
    """
    rows = latest(comparison.metrics)
    of_layers = rows[rows["layer"].notna() & rows["differs"]]
    key = ["at", "component", "since", "role", "metric"]
    standing_out = {
        place: ranges(int(layer) for layer in some["layer"])
        for place, some in of_layers.fillna({"since": -1}).groupby(key)
    }
    roles = rows[rows["layer"].isna()].fillna({"since": -1})
    if not everything:
        roles = roles[roles["differs"]]
    order = {role: place for place, role in enumerate(in_order(roles["role"]))}
    roles = roles.assign(place=roles["role"].map(order), moment=roles["at"].map([*MOMENTS].index))
    roles = roles.sort_values(["moment", "component", "place", "metric"], kind="stable")
    heading = ("at", "component", "role", "metric", comparison.a, comparison.b)
    cells: Cells = [(*heading, "difference", "must exceed", "layers that differ")]
    for place, row in zip(
        roles[key].itertuples(index=False, name=None), roles.to_dict("records"), strict=True
    ):
        log = quantity(str(row["metric"])).log
        cells.append(
            (
                _moment(row),
                str(row["component"]).replace("_", " "),
                str(row["role"]),
                str(row["metric"]),
                _number(row["a"]),
                _number(row["b"]),
                _change(row["difference"], log=log),
                _size(row["error"] + row["spread"], log=log),
                standing_out.get(place, ""),
            )
        )
    return cells


def _moment(row: Mapping[Hashable, Any]) -> str:
    """Where a row is compared, in words."""
    if row["at"] in ("loss", "distance"):
        return f"{row['at']} {row[row['at']]:.3f}"
    a, b = (f"{row[name]:.0f}" for name in ("step_a", "step_b"))
    return a if a == b else f"{a}, {b}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _change(difference: float, *, log: bool) -> str:
    """A difference with its sign, or a factor."""
    return f"×{10**difference:.3g}" if log else f"{difference:+.3g}"


def _size(half: float, *, log: bool) -> str:
    if math.isnan(half):
        return "?"
    return f"×÷{10**half:.3g}" if log else f"±{half:.2g}"


def distance_cells(comparison: Comparison) -> Cells:
    """The heading and one row per component, role and measure of the weights: means over layers."""
    cells: Cells = [("component", "role", "measure", "mean", "least", "most", "by chance")]
    rows = comparison.weights
    for component, of_component in rows.groupby("component", sort=True):
        for role in in_order(of_component["role"]):
            for measure, some in of_component[of_component["role"] == role].groupby("measure"):
                null, spread = some["null"].mean(), some["null_deviation"].mean()
                chance = f"{null:.3f}" + ("" if math.isnan(spread) else f" ± {spread:.3f}")
                values = (some["value"].mean(), some["value"].min(), some["value"].max())
                name = str(component).replace("_", " ")
                cells.append((name, role, str(measure), *(f"{x:.3f}" for x in values), chance))
    return cells


def sentences(comparison: Comparison) -> list[str]:
    """How many differences there are, how many chance alone would give, and what that rests on."""
    rows = latest(comparison.metrics)
    lines = []
    for at, some in rows[rows["layer"].isna()].groupby("at", sort=False):
        judged = some[some["spread"].notna()]
        over = "runs" if (some["runs_a"] + some["runs_b"]).max() > 2 else "layers"
        chance = (1 - comparison.confidence) * len(judged)
        lines.append(
            f"{MOMENTS[str(at)]}, {int(judged['differs'].sum())} of {len(judged)} differences "
            f"exceed their spread over {over} and their error; chance alone would give about "
            f"{chance:.0f}"
        )
        if len(judged) < len(some):
            lines.append(f"{len(some) - len(judged)} have a single layer and no spread")
    if len(rows) and (rows["runs_a"] + rows["runs_b"]).max() == 2:
        lines.append(REPLICATES_ADVICE)
    return lines


def as_markdown(cells: Cells) -> str:
    """Cells as a Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])


def as_latex(cells: Cells) -> str:
    """Cells as a LaTeX ``tabular``, with rules of booktabs."""
    lines = [" & ".join(map(_in_latex, row)) + r" \\" for row in cells]
    rules = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
    columns = "l" * len(cells[0])
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *rules, r"\end{tabular}"])


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "–": "--",
}


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
