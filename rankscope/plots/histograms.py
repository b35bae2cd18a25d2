"""`histogram` and `update_histograms`: how singular values are spread, all runs on one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rankscope.plots.decay import PALE, spectra_grid
from rankscope.plots.grid import finish_grid
from rankscope.plots.panel import drawn_on, start_at_zero
from rankscope.plots.style import SeriesStyle, paper_look
from rankscope.results.results import Results
from rankscope.statistics.replicates import are_replicates, by_group
from rankscope.statistics.row_choice import distinct
from rankscope.statistics.spectra_rows import bin_edges, counts, lower_end, positive_values
from rankscope.statistics.step_summary import summarised_over

FILL, FILL_OF_ALL = 0.25, 0.75


def histogram(
    spectra: pd.DataFrame,
    *,
    hue: str = "run",
    group: str | None = None,
    names: Sequence[object] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many singular values a matrix has of each size, on a log axis: ten bins a decade.

    Heights are numbers of values, as a mean over the matrices of a series, so the area of a matrix
    of rank r is r, however many matrices there are. Values above the noise floor of their own
    matrix are filled, with a full outline; the pale outline shows those that may be nothing but
    rounding. Values far below all others are left out, and the legend says so. Zeros are not drawn.

    Parameters
    ----------
    spectra
        One row per singular value, as for `spectrum`.
    hue, group
        The column that identifies the colours, or a pattern that groups runs into replicates: each
        run then counts alike.
    names
        All the values of ``hue`` in the study, to keep their colours; those there if not given.
    legend, ax
        As in `metric`.

    Raises
    ------
    RankscopeError
        If there are no spectra, or no positive singular value.

    Examples
    --------
    >>> import rankscope as rs
    >>> spectra = rs.open_results("results").spectra("update", role="q")
    >>> ax = rs.plots.histogram(spectra)
    >>> ax.get_xscale(), ax.get_ylabel()
    ('log', 'singular values per matrix')
    """
    spectra, hue = by_group(spectra, group, hue)
    values = positive_values(spectra)
    edges = bin_edges(lower_end(values, hue), float(values["singular_value"].max()))
    over, is_of_runs = summarised_over(spectra, hue=hue), are_replicates(spectra, hue)
    with drawn_on(ax, distinct(spectra, hue) if names is None else names, legend=legend) as panel:
        has_noise, fill = False, min(FILL, FILL_OF_ALL / values[hue].nunique())
        for name, series in values.groupby(hue, sort=True):
            every = spectra[spectra[hue] == name]
            certain, doubtful = counts(series, every, edges, by_run=is_of_runs)
            has_noise |= bool(doubtful.any())
            style = panel.series(name, marker=False)
            _draw(panel.ax, edges, certain, doubtful, style, fill=fill)
        if over:
            panel.note(f"mean over {over}")
        if has_noise:
            panel.line("below the noise floor (may be rounding alone)", alpha=PALE)
        if (values["singular_value"] < edges[0]).any():
            panel.note("smaller values, which are all noise, are left out")
        panel.ax.set(
            xscale="log", xlabel=r"singular value $\sigma$", ylabel="singular values per matrix"
        )
        start_at_zero(panel.ax)
    return panel.ax


@paper_look()
def update_histograms(
    results: Results,
    *,
    component: str = "update",
    roles: list[str] | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `histogram` at an early, a middle and a late step, all runs in each panel.

    Rows are roles, columns steps; parameters and errors as for `update_spectra`.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.update_histograms(rs.open_results("results"), roles=["v"])
    >>> [ax.get_title() for ax in figure.axes]
    ['step 10']
    """
    figure, panels = spectra_grid(results, histogram, component, roles=roles, hue=hue, group=group)
    return finish_grid(figure, panels, hole=None)


def _draw(
    ax: Axes,
    edges: NDArray[np.float64],
    certain: NDArray[np.float64],
    doubtful: NDArray[np.float64],
    style: SeriesStyle,
    *,
    fill: float,
) -> None:
    if doubtful.any():
        ax.stairs(doubtful, edges, color=style.color, alpha=PALE, linestyle=style.dashes)
    if certain.any():
        ax.stairs(certain, edges, color=style.color, alpha=fill, fill=True, linewidth=0)
        ax.stairs(certain, edges, color=style.color, linestyle=style.dashes)
