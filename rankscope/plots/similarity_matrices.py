"""Similarity of all layers of a checkpoint, or of all runs at a step, as coloured matrices."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.coloured_cells import color_bar, draw_cells, say_none
from rankscope.plots.label_texts import name_titles
from rankscope.plots.layer_maps import MOST_TICKS, SHORT
from rankscope.plots.map_grid import HIGHEST, finish_maps, map_figure, room
from rankscope.plots.panel import least_span
from rankscope.plots.similarity_lines import Measured
from rankscope.plots.style import paper_look
from rankscope.statistics.compared_features import (
    at_common_step,
    chosen_steps,
    groups_by_run,
    last_step_of_pairs,
    require_similarity,
)
from rankscope.statistics.feature_rows import few, place_titles, places_of, probe_text, rows_at
from rankscope.statistics.quantities import SIMILARITY_QUANTITIES
from rankscope.statistics.replicates import AGAINST, by_group, runs_over
from rankscope.statistics.row_choice import distinct, step_label

SAME = 1.0  # how alike a place is to itself
MOST_RUNS = 12
PANEL_WIDTH, LEAST_PANEL, NAME_WIDTHS = 1.5, 1.2, (0.9, 1.3, 1.8)
LEAST_SIDE = 0.7  # inches of the smallest matrix
TICK_LINE = 0.13  # inches that the name of a tick takes


def layer_similarity(
    similarities: pd.DataFrame,
    column: Measured = "cka",
    *,
    run: str | None = None,
    step: int | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    limits: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how similar the layers of a checkpoint are to each other, as a matrix of colours.

    Parameters
    ----------
    similarities
        `Results.similarities`, with comparisons of ``layers``.
    column
        As in `rankscope.plots.similarity`.
    run, step
        Which checkpoint: by default the last step of all runs, of which cells are the mean.
    at, text, features
        As in `rankscope.plots.feature`.
    limits, colorbar, ax
        As in `rankscope.plots.heatmap`.

    Raises
    ------
    RankscopeError
        If layers were not compared, or not at this step.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"layer": [0, 0, 1], "against_layer": [1, 2, 2]}).assign(
    ...     run="a", step=0, text="novels", features="all", at="mlp", comparison="layers",
    ...     against_run="a", against_at="mlp", cka=[0.9, 0.6, 0.8], tokens=2048
    ... )
    >>> ax = rs.plots.layer_similarity(rows, run="a", at="mlp")
    >>> ax.collections[0].get_array().shape
    (3, 3)
    """
    rows = rows_at(similarities, at=at, text=text, features=features, comparison="layers")
    rows = rows if run is None else rows[rows["run"] == run]
    rows = at_common_step(rows, step)
    limits = _limits(rows, column) if limits is None else limits
    ax = plt.gca() if ax is None else ax
    mesh = _draw_layers(ax, rows, column, limits)
    ax.set(xlabel="layer", ylabel="layer")
    if colorbar:
        color_bar(mesh, [ax], SIMILARITY_QUANTITIES[column].label)
    return ax


@paper_look()
def layer_similarities(
    similarities: pd.DataFrame,
    column: Measured = "cka",
    *,
    steps: Collection[int] | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `layer_similarity`: a column for every run and a row for every step.

    Parameters
    ----------
    similarities, column, at, text, features
        As in `layer_similarity`, and errors too.
    steps
        Steps to draw; by default the first, a middle one and the last that all runs have. The
        panel of a run without one of them says so.
    hue, group
        What gets a column of panels each: the values of a column, or runs that a pattern puts
        together, of which cells are the mean.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"step": [0, 100], "cka": [0.9, 0.6]}).assign(
    ...     run="a", text="novels", features="all", layer=0, at="mlp", comparison="layers",
    ...     against_run="a", against_layer=1, against_at="mlp", tokens=2048
    ... )
    >>> figure = rs.plots.layer_similarities(rows, at="mlp")
    >>> [text.get_text() for ax in figure.axes for text in ax.texts]
    ['step 0', 'step 100']
    """
    table, hue = by_group(similarities, group, hue)
    rows = rows_at(table, at=at, text=text, features=features, comparison="layers")
    names, shown = sorted(distinct(rows, hue), key=str), chosen_steps(rows, steps)
    rows = rows[rows["step"].isin(shown)]
    limits, side = _limits(rows, column), min(max(room() / len(names), LEAST_SIDE), PANEL_WIDTH)
    if len(names) * len(shown) * side**2 > HIGHEST * room():
        raise RankscopeError(
            f"matrices of {len(names)} runs are too many for a page: choose some, use `group`, or "
            "draw them wider"
        )
    titles = {step: f"{step_label(table)} {step}" for step in shown}

    def draw(step: int, name: object, ax: Axes) -> None:
        own = rows[(rows[hue] == name) & (rows["step"] == step)]
        if own.empty:
            say_none(ax, titles[step])
        else:
            _draw_layers(ax, own, column, limits)

    figure, panels = map_figure(titles, names, draw, line_height=side, least_width=LEAST_SIDE)
    over = runs_over(rows, hue)
    remarks = [*([f"mean over {over}"] if over else []), probe_text(rows)]
    label = f"{SIMILARITY_QUANTITIES[column].label}, of two layers"
    axes = "layer", "layer"
    finish_maps(figure, panels, label, axes=axes, hatched="no number", remarks=remarks)
    return figure


@paper_look()
def run_similarities(
    similarities: pd.DataFrame,
    column: Measured = "cka",
    *,
    step: int | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of how similar runs are at one step, as matrices: a panel for every place.

    With groups, cells are means over pairs of runs; on the diagonal, over pairs of one group, which
    show what another seed changes, and nothing where a group has one run.

    Parameters
    ----------
    similarities
        `Results.similarities`, with comparisons of ``runs``.
    column, at, text, features
        As in `rankscope.plots.similarity`.
    step
        The step; by default the last at which all pairs that have numbers have one.
    hue, group
        ``run``, or a pattern that puts runs together.

    Raises
    ------
    RankscopeError
        If runs were not compared, or not at this step, or there are more than twelve.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"run": ["a", "a", "b"], "against_run": ["b", "c", "c"]}).assign(
    ...     step=0, text="novels", features="all", layer=0, at="mlp", comparison="runs",
    ...     cka=[0.9, 0.6, 0.8], tokens=2048
    ... )
    >>> rs.plots.run_similarities(rows, at="mlp").axes[0].get_title()
    'mlp 0'
    """
    table, hue = by_group(similarities, group, hue)
    rows = rows_at(table, at=at, text=text, features=features, comparison="runs")
    of_run = groups_by_run(table, hue)
    sides = np.sort(np.column_stack([rows[side].map(of_run) for side in ("run", AGAINST)]))
    names = sorted({*sides.ravel()})
    if len(names) > MOST_RUNS:
        raise RankscopeError(
            f"{len(names)} runs are too many for a matrix: choose some, or use `group`"
        )
    pairs = rows.assign(first=sides[:, 0], second=sides[:, 1])
    pairs = pairs[pairs["step"] == last_step_of_pairs(pairs, column, step)]
    titles, limits = place_titles(places_of(pairs)), _limits(pairs, column)
    layers = {title: layer for layer, title in titles.items()}
    side = min(PANEL_WIDTH, room() / len(titles) if len(titles) < 3 else LEAST_PANEL)

    def draw(_: str, title: str, ax: Axes) -> None:
        here = pairs[pairs["layer"] == layers[title]]
        values = here.groupby(["first", "second"])[column].mean()
        _draw_matrix(ax, values, names, limits, has_self=hue == "run")
        ax.set_yticks(range(len(names)), _run_labels(names, side))
        ax.set_xticks(range(len(names)), [""] * len(names))

    figure, panels = map_figure({"": ""}, [*layers], draw, line_height=side, least_width=side)
    where = f"at {step_label(table)} {int(pairs['step'].iloc[0])}"
    remarks = [*([] if hue == "run" else ["means over pairs of runs"]), where, probe_text(pairs)]
    label = f"{SIMILARITY_QUANTITIES[column].label}, of two runs"
    axes = "runs in the same order from left to right as from bottom to top", ""
    why = "no number" if hue == "run" else "none"
    finish_maps(figure, panels, label, axes=axes, hatched=why, remarks=remarks)
    return figure


def _run_labels(names: Sequence[str], side: float) -> list[str]:
    """Names of runs over as many lines as a row has room for, wide enough to differ."""
    lines = max(1, int(side / len(names) / TICK_LINE))
    for width in NAME_WIDTHS:
        labels = name_titles(names, width, lines=lines)
        if len({*labels}) == len(names):
            break
    return labels


def _draw_layers(
    ax: Axes, rows: pd.DataFrame, column: str, limits: tuple[float, float]
) -> QuadMesh:
    """Draw the matrix of one checkpoint, or the mean of several runs at one step."""
    labels = dict(places_of(rows)) | {
        int(layer): str(at)
        for layer, at in rows[["against_layer", "against_at"]].drop_duplicates().itertuples(
            index=False
        )
    }  # fmt: skip
    layers = sorted(labels)
    values = rows.groupby(["layer", "against_layer"])[column].mean()
    mesh = _draw_matrix(ax, values, layers, limits, has_self=True)
    inches = ax.get_window_extent().height / ax.figure.dpi
    shown = few(range(len(layers)), min(MOST_TICKS, max(2, int(inches / TICK_LINE))))
    names = [SHORT.get(labels[layers[at]], str(layers[at])) for at in shown]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(shown, names)
    ax.tick_params(axis="x", rotation=90)
    return mesh


def _draw_matrix(
    ax: Axes,
    values: pd.Series[float],
    names: Sequence[object],
    limits: tuple[float, float],
    *,
    has_self: bool,
) -> QuadMesh:
    """Draw values of unordered pairs as a symmetric matrix, from the bottom left."""
    place = {name: number for number, name in enumerate(names)}
    matrix = np.full((len(names), len(names)), np.nan)
    for first, second, value in values.reset_index().itertuples(index=False, name=None):
        ends = place[first], place[second]
        matrix[ends] = matrix[ends[::-1]] = value
    if has_self:
        has_number = ~np.isnan(matrix).all(axis=0)
        np.fill_diagonal(matrix, np.where(has_number, SAME, np.nan))
    mesh = draw_cells(ax, pd.DataFrame(matrix), Normalize(*limits))
    ax.set_aspect("equal")
    return mesh


def _limits(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Ends of the colours: the least value, and that of a place with itself."""
    require_similarity(rows, column)
    values = rows[column]
    return least_span(float(values.min()), SAME)
