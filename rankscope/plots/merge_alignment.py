"""`merge_overlap` and `merge_overlaps`: whether a restart adds new directions."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from rankscope.plots.grid import finish_grid, panel_grid
from rankscope.plots.panel import CHANCE_WIDTH, Panel, drawn_on, start_at_zero
from rankscope.plots.style import DASHED, DOTTED, paper_look, series_styles
from rankscope.plots.subspace_lines import draw_shares, explain_doubt
from rankscope.statistics.replicates import Over, by_group
from rankscope.statistics.row_choice import in_order, role_name, series_names, span_text
from rankscope.statistics.step_summary import summarised_over
from rankscope.statistics.subspace_means import Against, compared_merges, shares

SPACES = {"left": "column space", "right": "row space"}
DASHES: dict[str, LineStyleType] = {"left": "-", "right": DASHED}
EARLIER: dict[Against, str] = {
    "previous": "previous merge",
    "first": "first merge",
    "last": "last merge",
}
NULLS: dict[str, LineStyleType] = {"left": DOTTED, "right": (0, (4, 1.5, 1, 1.5))}


def merge_overlap(
    table: pd.DataFrame,
    *,
    role: str | None = None,
    against: Against = "previous",
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the overlap of each merge's column and row space with those of the previous merge.

    ReLoRA's question: does a restart learn something new? 1 means that it learned in the same
    directions as the previous merge; the thin lines are the value for two unrelated subspaces, r
    over the dimensions of the side. Each merge is compared at its whole rank r, or at the largest
    size that was measured. Full lines with filled markers are column spaces (what the matrix writes
    to), dashed ones with hollow markers row spaces (what it reads from); both are means over
    matrices, with a band as in `overlap`. The axis counts merges among those compared.

    Parameters
    ----------
    table
        The table of subspaces, ``results.subspaces``. Colours are decided from all of it.
    role
        Which role; all if not given.
    against
        Compared with the ``previous`` merge, the ``first`` or the ``last`` one.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no subspaces of two merges were measured.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.merge_overlap(rs.open_results("results").subspaces, role="q")
    >>> [text.get_text() for text in ax.get_legend().get_texts()][:3]
    ['relora', 'mean over layers', 'column space']
    """
    table, hue = by_group(table, group, hue)
    rows = compared_merges(table, role=role, against=against)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        points = _draw(panel, rows, hue)
        _explain(panel, rows, points, over=_over(rows, hue))
        panel.ax.set(xlabel="merge", ylabel=f"overlap with the {EARLIER[against]}")
    return panel.ax


@paper_look()
def merge_overlaps(
    table: pd.DataFrame,
    *,
    against: Against = "previous",
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `merge_overlap` with a panel for every role; parameters and errors as there.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.merge_overlaps(rs.open_results("results").subspaces)
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['q, r = 2', 'k, r = 2']
    """
    table, hue = by_group(table, group, hue)
    rows = compared_merges(table, against=against)
    roles = in_order(rows["role"])
    figure, panels, hole = panel_grid(len(roles))
    points: list[pd.DataFrame] = []
    for role, ax in zip(roles, panels, strict=True):
        panel = Panel(ax, series_styles(series_names(table, hue)))
        points.append(_draw(panel, rows[rows["role"] == role], hue))
        ranks = rows.loc[(rows["role"] == role) & rows["value"].notna(), "k"]
        ax.set_title(f"{role_name(role, 'merge')}, r = {span_text(ranks)}")
    over = _over(rows.drop(columns="role"), hue)
    _explain(Panel(panels[0], {}), rows, pd.concat(points), over=over)
    panels[0].set(xlabel="merge", ylabel=f"overlap with the {EARLIER[against]}")
    return finish_grid(figure, panels, hole=hole)


def _draw(panel: Panel, rows: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Draw both spaces of each series; returns the points."""
    drawn: list[pd.DataFrame] = []
    for name, series in rows.groupby(hue, sort=True):
        style = panel.series(name, dashes="-")
        for side, dashes in DASHES.items():
            drawn.append(shares(series[series["side"] == side], hue=hue, x="merge"))
            draw_shares(
                panel.ax,
                drawn[-1],
                style,
                x="merge",
                hollow=side == "right",
                dashes=dashes,
                null=NULLS[side],
            )
    panel.ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    start_at_zero(panel.ax)
    return pd.concat(drawn)


def _over(rows: pd.DataFrame, hue: str) -> Over:
    """What lines are over: each side has its own lines, and merges count as steps."""
    counted = rows.assign(step=rows["merge"])
    return summarised_over(counted[counted["side"] == "left"], hue=hue)


def _explain(panel: Panel, rows: pd.DataFrame, points: pd.DataFrame, *, over: Over) -> None:
    if over:
        panel.line(f"mean over {over}")
    panel.mark(SPACES["left"], hollow=False)
    panel.mark(SPACES["right"])
    for side, name in SPACES.items():
        panel.line(f"unrelated {name}s", NULLS[side], width=CHANCE_WIDTH)
    explain_doubt(panel, rows, points, over)
