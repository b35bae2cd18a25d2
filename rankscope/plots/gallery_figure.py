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
        Draws it, with a column that identifies the lines, such as ``run``, and where there is
        ``has_published`` whether to draw over published curves; raises `RankscopeError` where the
        results do not allow it.
    has_data
        Whether the results hold what it needs.
    drawn_from
        What it needs, in words, to say why it was left out.
    component
        Which matrices it shows; None for figures of something else.
    table
        The table that it is drawn from.
    has_published
        Whether curves of `rankscope.published.weiss2025` are of the matrices or tasks in the
        results; None where none are of its kind.
    title
        What it is called, where its name does not say it.
    """

    draw: Callable[..., Figure]
    has_data: Callable[[Results], bool]
    drawn_from: str
    component: str | None = None
    table: Callable[[Results], pd.DataFrame] = attrgetter("metrics")
    has_published: Callable[[Results], bool] | None = None
    title: str = ""

    def over_published(self, results: Results) -> GalleryFigure:
        """The figure over published curves, where there are any for these results."""
        if not self.is_published(results):
            return self
        return replace(self, draw=lambda results, hue: self.draw(results, hue, True))

    def is_published(self, results: Results) -> bool:
        """Whether curves like those of these results are published."""
        return self.has_published is not None and self.has_published(results)

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
