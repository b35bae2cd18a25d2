"""The page of results: a template filled with numbers from the tables alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from arms import Arm, read_arms, read_scale
from measuring import GROUP
from rankscope.durable import write_file
from tables import read_tables


class Numbers:
    """Numbers of one scale as the page prints them."""

    def __init__(self, tables: Mapping[str, pd.DataFrame]) -> None:
        self.tables = tables

    def of(self, arm: str, number: str, digits: int = 3) -> str:
        """Mean over seeds, with the least and the greatest: ``0.765 [0.762, 0.768]``."""
        rows = self._rows(arm, number)
        if rows.empty:
            return "–"
        row = rows.iloc[0]
        if row["count"] < 2:
            return self._text(row["mean"], digits)
        ends = (self._text(row[end], digits) for end in ("min", "max"))
        return f"{self._text(row['mean'], digits)} [{', '.join(ends)}]"

    def mean(self, arm: str, number: str, digits: int = 3) -> str:
        """Mean over seeds alone."""
        rows = self._rows(arm, number)
        return "–" if rows.empty else self._text(rows["mean"].iloc[0], digits)

    def rate(self, arm: str) -> str:
        """The best learning rate of an arm."""
        return f"{self.tables['runs'].query('arm == @arm')['rate'].iloc[0]:g}"

    def seeds(self) -> int:
        """How many seeds there are at the best rate."""
        return int(self.tables["runs"].groupby("arm")["seed"].nunique().min())

    def at_rate(self, arm: str, rate: float, number: str, digits: int = 3) -> str:
        """A number of the sweep's run at a learning rate."""
        rows = self.tables["rates"].query("arm == @arm and rate == @rate")
        return "–" if rows.empty else self._text(rows[number].iloc[0], digits)

    def arms(self) -> list[str]:
        """The arms that there are."""
        return list(dict.fromkeys(self.tables["runs"]["arm"]))

    def equal(self, what: str, arm: str, column: str = "per", digits: int = 3) -> str:
        """A number where an arm and full rank have one loss or one distance: range over seeds."""
        values = self.tables[f"equal-{what}"].query("arm == @arm")[column]
        if values.empty:
            return "–"
        ends = (self._text(end, digits) for end in (values.min(), values.max()))
        text = self._text(values.mean(), digits)
        return text if len(values) < 2 else f"{text} [{', '.join(ends)}]"

    def steps(self) -> int:
        """How many cycles a training has."""
        return int(self.tables["cycles"]["cycle"].max())

    def first_seed(self) -> int:
        """The seed of the sweep."""
        return int(self.tables["rates"]["seed"].min())

    def swept(self) -> list[str]:
        """The arms that were trained at three learning rates or more."""
        counts = self.tables["rates"].groupby("arm", sort=False)["rate"].nunique()
        return list(counts[counts > 2].index)

    def rates(self) -> list[float]:
        """The learning rates of these arms."""
        rates = self.tables["rates"]
        return sorted(rates.loc[rates["arm"].isin(self.swept()), "rate"].unique())

    def cell(self, arm: str, rate: float) -> str:
        """Loss, PER and κ of the first seed at a learning rate; bold at the best."""
        row = self.tables["rates"].query("arm == @arm and rate == @rate")
        if row.empty:
            return ""
        numbers = row.iloc[0]
        kappa = self._text(numbers["condition_number"], 1)
        text = f"{numbers['validation_loss']:.3f} · {numbers['per']:.3f} · {kappa}"
        return f"**{text}**" if f"{rate:g}" == self.rate(arm) else text

    def correlations(self, column: str, task: str, metric: str) -> list[tuple[str, str, str]]:
        """Spearman's correlation over runs by role: between arms, and within them."""
        found = self.tables["correlations"].query(
            "column == @column and task == @task and metric == @metric and method == 'spearman'"
        )
        by_scope = {
            scope: rows.set_index("role") for scope, rows in found.groupby("scope", sort=False)
        }
        if not {"between", "within"} <= set(by_scope):
            return []
        return [
            (
                str(role),
                self._correlation(by_scope["between"].loc[role]),
                self._correlation(by_scope["within"].loc[role]),
            )
            for role in by_scope["between"].index
        ]

    def _correlation(self, row: pd.Series) -> str:
        value = f"{row['value']:+.2f}"
        if pd.isna(row["ci_low"]):
            return value
        return f"{value} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"

    def findings(self) -> list[tuple[str, str, list[str]]]:
        """What diagnose found: code, severity, and in how many runs of each arm."""
        found = self.tables["findings"]
        order = {"error": 0, "warning": 1, "note": 2}
        codes = found[["code", "severity"]].drop_duplicates()
        codes = codes.sort_values("severity", key=lambda column: column.map(order), kind="stable")
        return [
            (code, severity, [self._count(found, code, severity, arm) for arm in self.arms()])
            for code, severity in codes.itertuples(index=False)
        ]

    @staticmethod
    def _count(found: pd.DataFrame, code: str, severity: str, arm: str) -> str:
        rows = found.query("code == @code and severity == @severity and arm == @arm")
        return "" if rows.empty else str(rows["runs"].iloc[0])

    def _rows(self, arm: str, number: str) -> pd.DataFrame:
        return self.tables["arms"].query("arm == @arm and number == @number")

    @staticmethod
    def _text(value: float, digits: int) -> str:
        if abs(value) >= 100:
            return f"{value:,.0f}"
        return f"{round(value, digits) + 0.0:.{digits}f}"  # never -0


def write_page(folder: Path, scales: Sequence[str]) -> None:
    """Write README.md from ``page.md.jinja`` and the tables."""
    write_file(folder / "README.md", render(folder, scales).encode())


def render(folder: Path, scales: Sequence[str]) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    numbers = {name: Numbers(read_tables(folder / "tables" / name)) for name in scales}
    about = {name: read_scale(name).about for name in scales}
    return environment.get_template("page.md.jinja").render(
        about=about, arms=read_arms(), group=GROUP, **numbers
    )


def headline(tables: Mapping[str, pd.DataFrame], arms: Mapping[str, Arm]) -> Iterator[str]:
    """The answer in a few lines: one per arm."""
    numbers = Numbers(tables)
    titles = ("PER of weights", "κ of weights", "validation loss")
    yield f"{'arm':26} {'rate':>7} " + " ".join(f"{title:>22}" for title in titles)
    for arm in numbers.arms():
        cells = [numbers.of(arm, "per"), numbers.of(arm, "condition_number", 1)]
        cells.append(numbers.of(arm, "validation_loss"))
        yield f"{arms[arm].label:26} {numbers.rate(arm):>7} " + " ".join(f"{c:>22}" for c in cells)
