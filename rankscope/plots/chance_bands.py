"""`differences`: what two runs differ by over training, against what chance allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError
from rankscope.plots.grid import panel_figure
from rankscope.plots.marks import draw_band, draw_marks
from rankscope.plots.metric_lines import scale_axis
from rankscope.plots.panel import GREY, Panel
from rankscope.plots.style import paper_look, series_styles
from rankscope.plots.time_axis import label_steps
from rankscope.statistics.markup import literal
from rankscope.statistics.quantities import quantity
from rankscope.statistics.row_choice import in_order, role_name

NAME = "difference"


@paper_look()
def differences(
    metrics: pd.DataFrame,
    metric: str = "per",
    *,
    component: str = "weight",
    names: tuple[str, str] = ("a", "b"),
) -> Figure:
    """Figure of the difference of two runs in a metric over training, a panel for every role.

    The line is the mean over layers of what the second run has more than the first, or their ratio
    where the quantity spans decades. The grey band is what it must exceed: its spread by chance and
    the errors of arithmetic and storage. A filled marker is outside of the band, a hollow one
    within.

    Parameters
    ----------
    metrics
        `Comparison.metrics` of `rankscope.compare`.
    metric, component
        What to draw.
    names
        Names of the two runs.

    Raises
    ------
    WrongSettingError
        If this metric of this component was not compared at common steps.

    Examples
    --------
    >>> import rankscope as rs
    >>> rs.analyze(["ckpts/relora", "ckpts/full"], out="two", steps=[0, 10, 20]).empty
    False
    >>> found = rs.compare("ckpts/relora", "ckpts/full", results="two", weights=False)
    >>> rs.plots.differences(found.metrics, names=(found.a, found.b)).axes[0].get_title()
    'q'
    """
    rows = metrics[(metrics["at"] == "step") & metrics["layer"].isna()]
    rows = rows[(rows["component"] == component) & (rows["metric"] == metric)]
    if rows.empty:
        there = ", ".join(sorted({*metrics.loc[metrics["at"] == "step", "component"]})) or "nothing"
        raise WrongSettingError(
            f"{metric!r} of {component!r} was not compared at common steps: they are of {there}"
        )
    drawn, (a, b) = quantity(metric), map(literal, names)

    def draw(role: str, ax: Axes) -> None:
        own = rows[rows["role"] == role].sort_values("step_a")
        _draw(Panel(ax, series_styles([NAME])), own, log=drawn.log)
        label_steps(ax, metrics, own.assign(step=own["step_a"]))
        change = f"{drawn.symbol}: {b} {'/' if drawn.log else '−'} {a}"
        scale_axis(ax, replace(drawn, label=change))

    titles = {role: role_name(role, component) for role in in_order(rows["role"])}
    return panel_figure(titles, draw, share_y=not drawn.log)


def _draw(panel: Panel, rows: pd.DataFrame, *, log: bool) -> None:
    """Draw one line with its markers, and the band around no difference."""
    ax, style = panel.ax, panel.styles[NAME]
    steps, change, half = (
        rows[name].to_numpy(dtype=np.float64) for name in ("step_a", "difference", "error")
    )
    half = half + rows["spread"].to_numpy(dtype=np.float64)
    exceeds = rows["differs"].to_numpy(dtype=bool)
    low, high, centre = (10.0**x if log else x for x in (-half, half, change))
    draw_band(ax, steps, (low, high), replace(style, color=GREY))
    ax.axhline(1 if log else 0, color=GREY, linewidth=0.6, zorder=1)
    ax.plot(steps, centre, color=style.color)
    draw_marks(ax, steps, centre, style, hollow=~exceeds)
    panel.line("difference, mean over layers")
    panel.band("spread and error, which it must exceed")
    panel.mark("within spread and error")
