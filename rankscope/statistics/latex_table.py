"""A metric by role, run and step as a table for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Sequence
from typing import Any

import pandas as pd

from rankscope.errors import WrongSettingError, plain
from rankscope.statistics.quantities import quantity
from rankscope.statistics.row_choice import chosen_rows, in_order
from rankscope.statistics.step_summary import line_text, summarised_over, summary

WHOLE = ("", "cycle")  # parts of cycles and windows across restarts are other objects
NOISY = r"^{\ast}"
SPECIAL = re.compile(r"[\\{}&%$#_~^]")
AS_TEXT = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def latex_table(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    steps: Collection[int] | None = None,
    digits: int = 2,
) -> str:
    r"""Return a metric by role (rows), run and step (columns) as a ``tabular`` of booktabs.

    A cell is the mean over the matrices of a role, or the median of a quantity that spans decades,
    as in figures. It is preceded by ``$\geq$`` where only a lower bound is known, marked by an
    asterisk where rounding noise may change it by more than 1 %, and a dash where nothing is known.
    Comments above the table say so.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric.
    component
        Which matrices. Of changes, those between steps or over whole cycles.
    steps
        Which steps; by default the first and the last of each run.
    digits
        After the decimal point; significant digits of a quantity that spans decades.

    Raises
    ------
    WrongSettingError
        If the table has no such rows or steps, or the metric is unknown.

    Examples
    --------
    >>> import rankscope as rs
    >>> text = rs.open_results("results").to_latex(component="merged_total")
    >>> print("\n".join(text.splitlines()[:7]))
    % PER = effective rank / min(m, n): mean over layers
    \begin{tabular}{lrr}
    \toprule
     & \multicolumn{2}{c}{relora} \\
    \cmidrule(lr){2-3}
    role & 10 & 20 \\
    \midrule
    """
    drawn = quantity(column)
    rows = chosen_rows(table, component=component)
    window = rows["window"].fillna("") if "window" in rows else pd.Series("", index=rows.index)
    rows = rows[window.isin(WHOLE)]
    by_run = {str(run): _steps(own, steps) for run, own in rows.groupby("run", sort=True)}
    by_run = {run: there for run, there in by_run.items() if there}
    if not by_run:
        raise WrongSettingError(f"no rows of {component} at these `steps`")
    over = summarised_over(rows.drop(columns="role"))
    body = []
    for role in in_order(rows["role"]):
        points = summary(rows[rows["role"] == role], column)
        known = {(point["run"], point["step"]): point for point in points.to_dict("records")}
        at = [known.get((run, step)) for run, there in by_run.items() for step in there]
        cells = ["--" if one is None else _cell(one, digits, log=drawn.log) for one in at]
        body.append(rf"{latex_text(role)} & {' & '.join(cells)} \\")
    said = [f"% {drawn.label}" + (f": {line_text(column, over)}" if over else "")]
    if any(NOISY in line for line in body):
        said.append("% * rounding noise may change it by more than 1 %")
    return "\n".join([*said, *_head(by_run), *body, r"\bottomrule", r"\end{tabular}"])


def _steps(rows: pd.DataFrame, asked: Collection[int] | None) -> list[int]:
    there = sorted({int(step) for step in rows["step"]})
    if asked is None:
        return there[:1] if len(there) == 1 else [there[0], there[-1]]
    return [step for step in there if step in asked]


def _cell(point: dict[Hashable, Any], digits: int, *, log: bool) -> str:
    if pd.isna(point["centre"]):
        return "--"
    number = f"{point['centre']:.{digits}{'g' if log else 'f'}}"
    mantissa, e, exponent = number.partition("e")
    shown = rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else number.replace("inf", r"\infty")
    bound, noise = (r"\geq " if point["bound"] else ""), (NOISY if point["noisy"] else "")
    plain = shown == number and not bound and not noise
    return shown if plain else f"${bound}{shown}{noise}$"


def _head(by_run: dict[str, list[int]]) -> Sequence[str]:
    """Everything above the first row of numbers: runs above their steps."""
    columns = sum(map(len, by_run.values()))
    spans, rules, at = [], [], 2
    for run, steps in by_run.items():
        spans.append(rf"\multicolumn{{{len(steps)}}}{{c}}{{{latex_text(plain(run))}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + len(steps) - 1}}}")
        at += len(steps)
    numbers = [str(step) for steps in by_run.values() for step in steps]
    return (
        rf"\begin{{tabular}}{{l{'r' * columns}}}",
        r"\toprule",
        rf" & {' & '.join(spans)} \\",
        "".join(rules),
        rf"role & {' & '.join(numbers)} \\",
        r"\midrule",
    )


def latex_text(name: str) -> str:
    """A name, or other text without formulas, as LaTeX prints it."""
    return SPECIAL.sub(lambda found: AS_TEXT.get(found[0], "\\" + found[0]), name)
