"""`spectrum` and `update_spectra`: singular values by their index, over the largest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import finish_grid, new_figure, row_title
from rankscope.plots.marks import END_MARK, draw_band, mark_end
from rankscope.plots.panel import Panel, drawn_on
from rankscope.plots.style import DOTTED, SeriesStyle, figure_width, paper_look
from rankscope.results.results import Results
from rankscope.statistics.replicates import are_replicates, by_group
from rankscope.statistics.row_choice import (
    by_run,
    chosen_rows,
    distinct,
    role_title,
    series_names,
    step_label,
)
from rankscope.statistics.spectra_rows import (
    early_middle_late,
    lower_end,
    over_largest,
    typical_roles,
)
from rankscope.statistics.step_summary import summarised_over

VISIBLE = 1.05
PALE = 0.35  # of lines below the noise floor


def spectrum(
    spectra: pd.DataFrame,
    *,
    hue: str = "run",
    group: str | None = None,
    names: Sequence[object] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw singular values over their largest, by index from 1, on a log axis.

    The line is the median of the matrices of a series and the band spans their minimum to their
    maximum; for a single matrix the band is the interval that holds the true value, where that is
    wide enough to see. A dotted line is the (median) noise floor, where it is near. Below it values
    may be nothing but rounding: there the line is pale and has no band, and the axis does not
    follow it. A dot is at the last value above the floor. Zeros are not drawn.

    Parameters
    ----------
    spectra
        One row per singular value: columns ``index`` from 0, ``singular_value``, ``lower``,
        ``upper``, ``noise_floor``, and those that identify the matrix.
    hue, group
        The column that identifies the lines, or a pattern that groups runs into replicates: the
        line is then the median of their medians, the band from the least to the greatest of these.
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
    >>> spectra = rs.open_results("results").spectra("weight", run="full", role="q")
    >>> ax = rs.plots.spectrum(spectra, hue="step")
    >>> [text.get_text() for text in ax.get_legend().get_texts()][:4]
    ['5', '10', '100', 'median over layers']
    """
    spectra, hue = by_group(spectra, group, hue)
    relative = over_largest(spectra)
    is_of_runs = are_replicates(relative, hue)
    over, bottom = summarised_over(relative, hue=hue), lower_end(relative, hue)
    with drawn_on(ax, distinct(spectra, hue) if names is None else names, legend=legend) as panel:
        panel.ax.set_yscale("log")
        for name, series in relative.groupby(hue, sort=True):
            _draw_decay(panel, series, panel.series(name), is_of_runs=is_of_runs)
        if over:
            panel.line(f"median over {over}")
            panel.band(f"min to max over {over.runs or over}")
        if (relative.groupby(hue)["noise_floor"].median() > bottom).any():
            panel.line("noise floor", DOTTED, width=0.8)
        if (relative["singular_value"] <= relative["noise_floor"]).any():
            panel.line("below the noise floor (may be rounding alone)", alpha=PALE)
        panel.ax.set(xlabel="index i", ylabel=r"$\sigma_i/\sigma_1$", ylim=(bottom, 1.6))
    return panel.ax


def _draw_decay(
    panel: Panel, series: pd.DataFrame, style: SeriesStyle, *, is_of_runs: bool
) -> None:
    values = series.set_index(["run", "index"] if is_of_runs else "index")["singular_value"]
    if is_of_runs:
        values = values.groupby(["run", "index"]).median()
    by_index = values.groupby("index").agg(["median", "min", "max"])
    middle, low, high = (by_index[name] for name in ("median", "min", "max"))
    if series["matrix"].nunique() == 1 and not is_of_runs:
        interval = series.set_index("index").sort_index()
        if (interval["upper"] > VISIBLE * interval["lower"]).any():
            low, high = (
                interval["lower"].clip(lower=interval["noise_floor"] / 1e3),
                interval["upper"],
            )
            panel.band("interval of the true value")
    floor = float(series["noise_floor"].median())
    is_above = middle > floor
    ax, pale = panel.ax, middle.mask(is_above.shift(-1, fill_value=False))  # from the last above on
    for part, alpha in ((middle.where(is_above), 1.0), (pale, PALE)):
        ax.plot(part.index, part, color=style.color, linestyle=style.dashes, alpha=alpha)
    draw_band(ax, middle.index, (low.where(is_above), high), style)
    ax.axhline(floor, color=style.color, linestyle=DOTTED, linewidth=0.8)
    mark_end(ax, floor, style)
    last = middle[is_above].iloc[-1:]
    ax.plot(last.index, last, marker=style.marker, markersize=END_MARK, color=style.color)


@paper_look()
def update_spectra(
    results: Results,
    *,
    component: str = "update",
    roles: list[str] | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of spectra at an early, a middle and a late step, all runs in each panel.

    Rows are roles, columns steps; lines and bands as in `spectrum`.

    Parameters
    ----------
    results
        What an analysis stored: its metrics decide on the steps, its spectra are drawn.
    component
        Which matrices.
    roles
        Which roles; one of attention and one of the MLP if not given.
    hue, group
        The column that identifies the lines: ``run``, ``layer``, or one that ``results.metrics``
        was given for its runs; or a pattern that groups runs into replicates.

    Raises
    ------
    RankscopeError
        If there are no such matrices with a spectrum.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.update_spectra(rs.open_results("results"), roles=["v"])
    >>> [ax.get_title() for ax in figure.axes]
    ['step 10']
    """
    figure, panels = spectra_grid(results, spectrum, component, roles=roles, hue=hue, group=group)
    panels[0].set_ylim(bottom=min(ax.get_ylim()[0] for ax in panels))
    return finish_grid(figure, panels, hole=None)


def spectra_grid(
    results: Results,
    draw: Callable[..., Axes],
    component: str,
    *,
    roles: list[str] | None,
    hue: str,
    group: str | None,
) -> tuple[Figure, list[Axes]]:
    """Panels of spectra with a row for every role, and an early, a middle and a late step.

    Parameters and errors are those of `update_spectra`; ``draw`` is an axes-level function of the
    singular values of one role and step, such as `spectrum`.
    """
    table, hue = by_group(results.metrics, group, hue)
    rows = chosen_rows(table, component=component)
    rows = rows[rows["spectral_norm"] > 0]
    if rows.empty:
        raise RankscopeError(f"every matrix of component {component!r} is zero: it has no spectrum")
    steps = early_middle_late(rows)
    roles = typical_roles(rows) if roles is None else roles
    width = figure_width()
    figure, grid = new_figure(len(roles), len(steps), size=(width, 0.4 + 1.35 * len(roles)))
    names = series_names(table, hue)
    for step, column in zip(steps, zip(*grid, strict=True), strict=True):
        spectra = results.spectra(component=component, step=step, role=roles)
        if hue not in spectra.columns:
            spectra = spectra.assign(**{hue: spectra["run"].map(by_run(table, hue))})
        for role, ax in zip(roles, column, strict=True):
            own = spectra[spectra["role"] == role]
            draw(own, hue=hue, names=names, legend=False, ax=ax)
        column[0].set_title(f"{step_label(table)} {step}")
    for role, line in zip(roles, grid, strict=True):
        row_title(line[-1], role_title(role, rows[rows["role"] == role]).replace("  ", "\n"))
    return figure, [ax for line in grid for ax in line]
