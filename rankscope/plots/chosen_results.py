"""`ChosenResults`: results of some runs and roles, in the colours of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from rankscope.results.column_types import Shared
from rankscope.results.results import Results, listed
from rankscope.statistics.replicates import AGAINST, RUN_GROUP, with_groups
from rankscope.statistics.row_choice import SERIES


@dataclass(frozen=True)
class Study:
    """What is chosen of results, and what it takes to colour it as in figures of everything.

    Attributes
    ----------
    names
        All runs.
    groups
        The group of each, if there are groups.
    runs, roles
        Those that are chosen; all where there are none.
    """

    names: Collection[str]
    groups: Mapping[str, str] | None
    runs: Collection[str]
    roles: Collection[str]

    def chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """The chosen rows of a table."""
        table = self.coloured(table)
        for column, wanted in (("run", self.runs), (AGAINST, self.runs), ("role", self.roles)):
            if wanted and column in table.columns:
                table = table[table[column].isin(wanted)]
        return table

    def coloured(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with the names of all series."""
        names = {"run": [*self.names]}
        if self.groups is not None:
            names[RUN_GROUP] = [*dict.fromkeys(self.groups.values())]
            table = with_groups(table, self.groups) if "run" in table else table
        table = table.copy(deep=False)
        table.attrs |= {SERIES: Shared(names)}
        return table


@dataclass(frozen=True)
class ChosenResults(Results):
    """Results whose rows are those that a `Study` has chosen of others."""

    source: Results = field(kw_only=True)
    study: Study = field(kw_only=True)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """All rows that are chosen."""
        return self.rows()

    def rows(self, columns: Collection[str] | None = None, **where: Any) -> pd.DataFrame:
        """Rows and columns of `metrics`, with the column of groups if runs are grouped."""
        if "metrics" in vars(self):
            return super().rows(columns, **where)
        return self.study.coloured(self.source.rows(columns, **self._narrowed(where)))

    def distinct(self, columns: Collection[str], **where: Any) -> pd.DataFrame:
        """Distinct rows of columns of `metrics`, with the column of groups if runs are grouped."""
        if "metrics" in vars(self):
            return super().distinct(columns, **where)
        return self.study.coloured(self.source.distinct(columns, **self._narrowed(where)))

    def _narrowed(self, where: dict[str, Any]) -> dict[str, Any]:
        for name, chosen in (("run", self.study.runs), ("role", self.study.roles)):
            if chosen:
                asked = where.get(name)
                kept = [one for one in chosen if asked is None or one in listed(asked)]
                where = {**where, name: kept}
        return where
