"""`input_energy` and `input_energies`: whether weights look where their inputs are, by step."""

from __future__ import annotations

from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.gallery_figure import GalleryFigure
from rankscope.plots.grid import panel_figure
from rankscope.plots.metric_lines import metric
from rankscope.plots.panel import drawn_on
from rankscope.plots.style import paper_look
from rankscope.statistics.energy_over_chance import OVER_CHANCE, has_shares, with_chance
from rankscope.statistics.replicates import by_group
from rankscope.statistics.row_choice import chosen_rows, in_order, role_name, series_names


def input_energy(
    energies: pd.DataFrame,
    *,
    component: str = "weight",
    role: str | None = None,
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how much of the weights' input lies in their leading directions: one line per run.

    The share of the features' energy, centred, in the directions that hold 90 % of the energy of a
    matrix (of an adapter in all of its own), over the share that random directions have. Above the
    dotted line at 1, the matrix acts on the features' directions more than chance would. Lines,
    bands and markers are those of `rankscope.plots.metric`; a matrix that is zero, as new adapters
    are, has no share.

    Parameters
    ----------
    energies
        `Results.input_energies`.
    component, role
        Which matrices: ``weight``, ``update`` or ``adapter``, and a role or all.
    text, features
        Which text, and ``all`` or ``last`` tokens; by default the first by name.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If there are no such matrices.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"step": [0, 100], "energy_share_centred": [0.25, 0.5]}).assign(
    ...     run="a", text="novels", features="all", layer=0, role="q", component="weight",
    ...     span="", weight_share=0.9, dimensions=8, energy_share_chance_centred=0.25
    ... )
    >>> ax = rs.plots.input_energy(rows, role="q")
    >>> ax.get_ylabel()
    'energy of inputs / chance'
    """
    table, hue = by_group(energies, group, hue)
    rows = with_chance(table, text=text, features=features)
    with drawn_on(ax, series_names(rows, hue), legend=legend) as panel:
        metric(
            rows, OVER_CHANCE, component=component, role=role, hue=hue, legend=False, ax=panel.ax
        )
        panel.baseline([1], "random directions")
        panel.ax.set_ylabel("energy of inputs / chance")
    return panel.ax


@paper_look()
def input_energies(
    energies: pd.DataFrame,
    component: str = "weight",
    *,
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `input_energy` with a panel for every role.

    Parameters and errors as there.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"role": ["q", "down"], "dimensions": [8, 32]}).assign(
    ...     run="a", step=0, text="novels", features="all", layer=0, component="weight", span="",
    ...     weight_share=0.9, energy_share_centred=0.4, energy_share_chance_centred=0.25
    ... )
    >>> figure = rs.plots.input_energies(rows)
    >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
    ['q  d = 8', 'down  d = 32']
    """
    table, hue = by_group(energies, group, hue)
    rows = chosen_rows(table, component=component)
    draw = partial(
        input_energy,
        table,
        component=component,
        text=text,
        features=features,
        hue=hue,
        legend=False,
    )
    titles = {}
    for role in in_order(rows["role"]):
        sizes = sorted({*rows.loc[rows["role"] == role, "dimensions"].dropna().astype(int)})
        titles[role] = role_name(role, component) + (f"  d = {sizes[0]}" if len(sizes) == 1 else "")
    return panel_figure(titles, lambda role, ax: draw(role=role, ax=ax))


def figure_of_energies(component: str, words: str) -> GalleryFigure:
    """The figure of one component, for the gallery."""
    return GalleryFigure(
        lambda r, hue: input_energies(r.input_energies, component, hue=hue),
        lambda r: has_shares(r.input_energies, component),
        f"inputs of {words}, which `represent` measures if `energy` names {component!r}",
        component,
        table=lambda r: r.input_energies,
        title=f"Energy of inputs in the leading directions of {words}, over chance",
    )
