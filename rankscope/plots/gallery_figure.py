"""`GalleryFigure`: one figure of the gallery, and what it takes to draw it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import copy
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from rankscope.plots.captions import Caption, caption_of, runs_of
from rankscope.plots.grid import add_foot
from rankscope.results.column_types import Shared
from rankscope.results.figure_source import FigureSource
from rankscope.results.results import Results
from rankscope.statistics.replicates import RUN_GROUP
from rankscope.statistics.row_choice import SERIES

PLACES = (
    *("run", "step", "layer", "role", "component", "head", "expert"),
    *("window", "rows", "cols", "max_rank"),
)
"""Columns that say which matrix of which step a row is of, and of which size it can be."""
CAPTIONED = ("run", "component", "status", "effective_rank")


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
    columns
        The columns of the metrics table that it takes besides `PLACES`.
    components
        Other components whose rows it takes; None for all.
    of_runs
        The runs that it is about; all if not given.
    table
        The table that it is drawn from; the metrics if not given.
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
    columns: Collection[str] = ()
    components: Collection[str] | None = ()
    of_runs: Callable[[Results], Collection[str]] | None = None
    table: Callable[[Results], pd.DataFrame] | None = None
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
        if not self.has_data(results):
            return None
        taken = self.narrowed(results)
        return self.draw(taken, RUN_GROUP if RUN_GROUP in taken.metrics else "run")

    def narrowed(self, results: Results) -> Results:
        """The results with those rows and columns of the metrics that the figure takes.

        Runs keep the colours that they have in all figures.
        """
        rows = self._rows(results, (*PLACES, *self.columns))
        if SERIES not in rows.attrs:
            runs = results.distinct(["run"])["run"].dropna()
            rows.attrs |= {SERIES: Shared({"run": [*runs]})}
        return with_tables(results, metrics=rows)

    def _rows(self, results: Results, columns: Iterable[str]) -> pd.DataFrame:
        if self.table is not None:  # only the names of the series are wanted
            return results.rows([*dict.fromkeys(columns)], run=[])
        others = self.components
        is_of_one = self.component is not None and others is not None
        return results.rows(
            [*dict.fromkeys(columns)],
            component=[str(self.component), *(others or ())] if is_of_one else others or None,
            run=None if self.of_runs is None else self.of_runs(results),
        )

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
        rows = self._rows(results, CAPTIONED) if self.table is None else self.table(results)
        if self.component is not None:
            rows = rows[rows["component"] == self.component]
        caption = caption_of(figure, name, rows, component=self.component, source=source)
        add_foot(figure, [*source.remarks(runs_of(rows))])
        return replace(caption, title=self.title) if self.title else caption


def with_tables(results: Results, **tables: pd.DataFrame) -> Results:
    """The same results with other tables in place of those that are read."""
    changed = copy(results)
    vars(changed).update(tables)
    return changed
