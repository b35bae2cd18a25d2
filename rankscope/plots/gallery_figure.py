"""`GalleryFigure`: one figure of the gallery, and what it takes to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter

import pandas as pd
from matplotlib.figure import Figure

from rankscope.plots.captions import Caption, caption_of, runs_of
from rankscope.plots.figure_source import FigureSource, add_foot
from rankscope.results.results import Results
from rankscope.statistics.replicates import RUN_GROUP


@dataclass(frozen=True)
class GalleryFigure:
    """A figure that may be drawn from results.

    Attributes
    ----------
    draw
        Draws it, with a column that identifies the lines, such as ``run``; raises
        `RankscopeError` where the results do not allow it.
    has_data
        Whether the results hold what it needs.
    drawn_from
        What it needs, in words, to say why it was left out.
    component
        Which matrices it shows; None for figures of something else.
    table
        The table that it is drawn from.
    draw_published
        Draws it over the curves of `rankscope.published.weiss2025`, if any are of its kind.
    has_published
        Whether some are of the matrices or tasks in the results.
    title
        What it is called, where its name does not say it.
    """

    draw: Callable[[Results, str], Figure]
    has_data: Callable[[Results], bool]
    drawn_from: str
    component: str | None = None
    table: Callable[[Results], pd.DataFrame] = attrgetter("metrics")
    draw_published: Callable[[Results, str], Figure] | None = None
    has_published: Callable[[Results], bool] = lambda _: False
    title: str = ""

    def over_published(self, results: Results) -> GalleryFigure:
        """The figure over published curves, where there are any for these results."""
        if self.draw_published is None or not self.has_published(results):
            return self
        return replace(self, draw=self.draw_published)

    def __call__(self, results: Results) -> Figure | None:
        """Draw the figure, of the groups of runs if `selected` made any; None without data."""
        hue = RUN_GROUP if RUN_GROUP in results.metrics else "run"
        return self.draw(results, hue) if self.has_data(results) else None

    def with_caption(
        self, name: str, results: Results, source: FigureSource
    ) -> tuple[Figure, Caption] | None:
        """Draw the figure, with remarks of its source at the foot, and its caption."""
        figure = self(results)
        return None if figure is None else (figure, self.described(figure, name, results, source))

    def described(
        self, figure: Figure, name: str, results: Results, source: FigureSource
    ) -> Caption:
        """Add the remarks of the source to the foot of a figure that was drawn; its caption."""
        rows = self.table(results)
        if self.component is not None:
            rows = rows[rows["component"] == self.component]
        caption = caption_of(figure, name, rows, component=self.component, source=source)
        add_foot(figure, [*source.remarks(runs_of(rows))])
        return replace(caption, title=self.title) if self.title else caption
