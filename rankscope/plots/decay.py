"""`spectrum` and `update_spectra`: singular values by their index, over the largest."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import new_figure, row_title
from rankscope.plots.legends import band_entry, draw_legend, line_entry, series_entry, shared_legend
from rankscope.plots.metric_lines import BAND_ALPHA
from rankscope.plots.style import SeriesStyle, paper_look, series_styles
from rankscope.results.results import Results
from rankscope.statistics.row_choice import chosen_rows, distinct, in_order, role_title
from rankscope.statistics.step_summary import summarised_over

MATRIX = ["run", "step", "layer", "role", "component", "head", "name"]
VISIBLE = 1.05


def spectrum(
    spectra: pd.DataFrame,
    *,
    hue: str = "run",
    names: Sequence[object] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw singular values over their largest, by index from 1, on a log axis.

    Of several matrices in a series, the line is their median and the band goes from minimum to
    maximum; of a single one, the band is the interval that holds the true value, where that is
    wide enough to see. A dot ends each spectrum, early for a product of low rank. A dotted
    line is the (median) noise floor, below which values may be nothing but rounding. Zeros are
    not drawn.

    Parameters
    ----------
    spectra
        One row a singular value: columns ``index`` from 0, ``singular_value``, ``lower``,
        ``upper``, ``noise_floor``, and those that name the matrix.
    hue
        The column that tells the lines apart.
    names
        All the values of ``hue`` in the study, to keep their colours; those there if not given.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If there are no spectra, or no positive singular value.
    """
    relative = _relative(spectra)
    styles = series_styles(distinct(spectra, hue) if names is None else names)
    ax = plt.gca() if ax is None else ax
    ax.set_yscale("log")
    for name, series in relative.groupby(hue, sort=True):
        series_entry(ax, name, styles[name], marker=False)
        _draw_decay(ax, series, styles[name])
        floor = _floor(series)
        ax.axhline(floor, color=styles[name].color, linestyle=":", linewidth=0.8)
    over = summarised_over(relative, hue=hue)
    if over:
        line_entry(ax, f"median over {over}", "-", width=1.1)
        band_entry(ax, f"min to max over {over}")
    ax.set(xlabel="index i", ylabel=r"$\sigma_i/\sigma_1$")
    ax.set_ylim(_bottom(relative, hue), 1.6)
    line_entry(ax, "noise floor", ":", width=0.8)
    if legend:
        draw_legend(ax)
    return ax


def _relative(spectra: pd.DataFrame) -> pd.DataFrame:
    if spectra.empty:
        raise RankscopeError("no spectra are stored of these matrices")
    positive = spectra[spectra["singular_value"] > 0].copy()
    if positive.empty:
        raise RankscopeError("no singular value is positive: there is no spectrum to draw")
    matrix = [column for column in MATRIX if column in positive.columns]
    largest = positive.groupby(matrix, dropna=False)["singular_value"].transform("max")
    for column in ("singular_value", "lower", "upper", "noise_floor"):
        positive[column] = positive[column] / largest
    positive["matrix"] = positive.groupby(matrix, dropna=False).ngroup()
    positive["place"] = positive["index"] + 1
    return positive


def _draw_decay(ax: Axes, series: pd.DataFrame, style: SeriesStyle) -> None:
    several = series["matrix"].nunique() > 1
    sns.lineplot(
        series,
        x="place",
        y="singular_value",
        estimator="median" if several else None,
        errorbar=("pi", 100),
        err_kws={"alpha": BAND_ALPHA, "linewidth": 0},
        color=style.color,
        linestyle=style.dashes,
        legend=False,
        ax=ax,
    )
    if not several and (series["upper"] > VISIBLE * series["lower"]).any():
        low = series["lower"].clip(lower=series["noise_floor"] / 1e3)
        ax.fill_between(
            series["place"], low, series["upper"], color=style.color, alpha=BAND_ALPHA, linewidth=0
        )
        band_entry(ax, "interval of the true value")
    last = series[series["place"] == series["place"].max()]
    ax.plot(
        last["place"].iloc[:1], [last["singular_value"].median()], marker=".", color=style.color
    )


def _floor(series: pd.DataFrame) -> float:
    return float(series["noise_floor"].median())


def _bottom(relative: pd.DataFrame, hue: str) -> float:
    """Lower end of the axis: below all values, and below a floor that is not far from them."""
    least = 0.5 * float(relative["singular_value"].min())
    floors = relative.groupby(hue)["noise_floor"].median()
    near = floors[floors > least / 1e3]
    return min(least, *(0.5 * float(floor) for floor in near)) if len(near) else least


@paper_look()
def update_spectra(
    results: Results, *, component: str = "update", roles: list[str] | None = None
) -> Figure:
    """Figure of spectra at an early, a middle and a late step, all runs in each panel.

    Rows are roles, columns steps; lines are medians over the layers, bands go from minimum to
    maximum.

    Parameters
    ----------
    results
        What an analysis stored: its metrics decide on the steps, its spectra are drawn.
    component
        Which matrices.
    roles
        Which roles; one of attention and one of the MLP if not given.

    Raises
    ------
    RankscopeError
        If there are no such matrices with a spectrum.
    """
    table = results.metrics
    rows = chosen_rows(table, component=component)
    rows = rows[rows["spectral_norm"] > 0]
    if rows.empty:
        raise RankscopeError(f"every matrix of component {component!r} is zero: it has no spectrum")
    steps = _early_middle_late(rows)
    roles = _typical_roles(rows) if roles is None else roles
    width = float(mpl.rcParams["figure.figsize"][0])
    figure, grid = new_figure(len(roles), len(steps), size=(width, 0.4 + 1.35 * len(roles)))
    names = distinct(table, "run")
    bottoms: list[float] = []
    for role, line in zip(roles, grid, strict=True):
        for step, ax in zip(steps, line, strict=True):
            spectra = results.spectra(component=component, step=step, role=role)
            spectrum(spectra, names=names, legend=False, ax=ax)
            bottoms.append(ax.get_ylim()[0])
            ax.set(xlabel="", ylabel="")
        row_title(line[-1], role_title(role, _of(rows, role)).replace("  ", "\n"))
    for step, ax in zip(steps, grid[0], strict=True):
        ax.set_title(f"step {step}")
    grid[0][0].set_ylim(bottom=min(bottoms))
    figure.supxlabel("index i")
    figure.supylabel(r"$\sigma_i/\sigma_1$")
    shared_legend(figure, [ax for line in grid for ax in line], hole=None)
    return figure


def _of(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    return rows[rows["role"] == role]


def _early_middle_late(rows: pd.DataFrame) -> list[int]:
    """First, middle and last of the steps that all runs have, or of all if they share none."""
    by_run = [set(series) for _, series in rows.groupby("run")["step"]]
    steps = sorted(set.intersection(*by_run) or set.union(*by_run))
    return sorted({int(steps[0]), int(steps[len(steps) // 2]), int(steps[-1])})


def _typical_roles(rows: pd.DataFrame) -> list[str]:
    roles = in_order(rows["role"])
    attention = next((role for role in ("v", "q", "k", "o") if role in roles), roles[0])
    mlp = next((role for role in ("down", "up", "gate") if role in roles), roles[-1])
    return list(dict.fromkeys([attention, mlp]))
