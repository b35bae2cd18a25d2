"""`intruder_count` and `intruders`: singular vectors without a counterpart, by layer and step."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rankscope.plots.coloured_cells import color_bar, draw_cells
from rankscope.plots.grid import FRAME, panel_grid, shared_legend
from rankscope.plots.label_texts import name_title, wrapped
from rankscope.plots.map_grid import explain_hatching
from rankscope.plots.panel import CHANCE_WIDTH, Panel, drawn_on, least_span, start_at_zero
from rankscope.plots.style import DOTTED, paper_look
from rankscope.plots.subspace_lines import EARLIER, draw_shares
from rankscope.plots.time_axis import map_time_axis, time_axis
from rankscope.statistics.layer_cells import cell_limits, in_layers, layer_cells
from rankscope.statistics.replicates import by_group
from rankscope.statistics.row_choice import series_names, step_label
from rankscope.statistics.step_summary import summarised_over
from rankscope.statistics.subspace_means import Against, intruder_counts, known_comparisons

LABEL = "certain intruders among the 10 leading directions"


def intruder_count(
    table: pd.DataFrame,
    *,
    role: str | None = None,
    against: Against = "previous",
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many of the top 10 left singular vectors are intruders, against the step.

    An intruder has no absolute cosine of 0.5 or more with any left singular vector of the earlier
    matrix. The line is the mean number of certain ones per matrix; the band adds those that close
    singular values leave undecided: the truth is within it. The dotted line is the mean after a
    Gaussian change of the same norm, where undecided ones count half.

    Parameters
    ----------
    table
        The table of subspaces, ``results.subspaces``. Colours are decided from all of it.
    role
        Which role; all if not given.
    against
        Compared with the ``previous``, the ``first`` or the ``last`` checkpoint.
    hue
        The column that identifies the lines, such as ``layer`` for one run.
    group
        A pattern that groups runs into replicates.
    legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no intruders were counted.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.intruder_count(rs.open_results("results").subspaces, against="first")
    >>> ax.get_ylabel()
    'intruders per matrix, against the first checkpoint'
    """
    table, hue = by_group(table, group, hue)
    rows = known_comparisons(table, "intruders", role=role, against=against)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        for name, series in intruder_counts(rows, hue=hue).groupby(hue, sort=True):
            draw_shares(panel.ax, series, panel.series(name))
        _explain(panel, rows, hue)
        label = f"intruders per matrix, against the {EARLIER[against]}"
        time_axis(panel, table, rows, hue=hue)
        panel.ax.set_ylabel(label)
        start_at_zero(panel.ax)
    return panel.ax


@paper_look()
def intruders(
    table: pd.DataFrame,
    *,
    role: str | None = None,
    against: Against = "previous",
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `intruder_count`, then a map of the certain ones by layer and step for every run.

    Cells are means over the matrices of a layer. Cells without a number are hatched. Parameters and
    errors as in `intruder_count`; there is a map for each value of ``hue``.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.intruders(rs.open_results("results").subspaces)
    >>> [ax.get_title() for ax in figure.axes][:3]
    ['all layers', 'full', 'relora']
    """
    table, hue = by_group(table, group, hue)
    rows = in_layers(known_comparisons(table, "intruders", role=role, against=against))
    names = sorted(rows[hue].dropna().unique())
    figure, panels, hole = panel_grid(1 + len(names), share_y=False)
    height = figure.get_figheight()
    intruder_count(table, role=role, against=against, hue=hue, legend=False, ax=panels[0])
    panels[0].set(title="all layers", xlabel="", ylabel="intruders per matrix")
    cells = {name: layer_cells(rows[rows[hue] == name], "value") for name in names}
    scale = Normalize(*least_span(*cell_limits(cells.values(), "value")))
    for name, ax in zip(names, panels[1:], strict=True):
        shown = rows[rows[hue] == name]
        mesh = draw_cells(ax, cells[name], scale)
        map_time_axis(ax, table, shown)
        width = ax.get_position().width * figure.get_figwidth()
        ax.set(title=name_title(name, width), xlabel="", ylabel="layer")
    explain_hatching(Panel(panels[0], {}), panels[1:], "no number")
    color_bar(mesh, panels, wrapped(LABEL, height - FRAME))
    shared_legend(figure, panels, hole=hole)
    figure.supxlabel(f"{step_label(table)}; against the {EARLIER[against]}")
    return figure


def _explain(panel: Panel, rows: pd.DataFrame, hue: str) -> None:
    over = summarised_over(rows, hue=hue)
    panel.line(f"certain ones, mean over {over}" if over else "certain ones")
    runs = f", min to max over {over.runs}" if over.runs else ""
    panel.band(f"with undecided ones{runs}")
    panel.left_out(over)
    panel.line("by chance (Gaussian change of the same norm)", DOTTED, width=CHANCE_WIDTH)
