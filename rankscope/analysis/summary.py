"""The answer in brief: how PER and condition numbers moved, and what stands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from rankscope.analysis.moves import Moves
from rankscope.analysis.summary_lines import (
    End,
    Ends,
    Line,
    Lines,
    are_noisy,
    mean_rank,
    median_of,
)
from rankscope.analysis.zeros import Zeros
from rankscope.results.measure import Row
from rankscope.results.summary_tables import WINDOWS

# The columns that a summary is made of: for a table that is not in memory as a whole.
SUMMARISED = (
    *("run", "step", "layer", "role", "component", "head", "expert", "name", "since", "window"),
    *("rows", "cols", "dtype", "status", "effective_rank", "per", "per_error", "per_resolved"),
    *("noise_source", "numerical_rank", "max_rank"),
    *("condition_number", "condition_number_status", "condition_number_r"),
)


@dataclass(frozen=True)
class Summary:
    """Lines by role and of all roles together, and findings in words, the most striking first."""

    lines: list[Line]
    overall: list[Line]
    findings: list[str]


class Gathered:
    """What a summary takes from the rows of an analysis, gathered in the order of the table.

    Rows without a rank do not count. Nothing is compared across a break: where the series of a run
    breaks, only the rows from the last break on are summarised.

    Parameters
    ----------
    breaks
        The step of each run's last break, by run name.
    units
        What the steps of each run count, by run name; optimizer steps if missing.

    Attributes
    ----------
    statuses
        Number of rows by status.
    """

    def __init__(
        self, breaks: Mapping[str, int] | None = None, units: Mapping[str, str] | None = None
    ) -> None:
        self._starts, self._units = breaks or {}, units or {}
        self.statuses: Counter[str] = Counter()
        self._lines, self._moves = Lines(), Moves()
        self._updates: dict[str, _LastUpdates] = {}
        self._merged: dict[str, tuple[Ends, set[int]]] = {}
        self._limits: dict[tuple[str, str], Counter[str]] = {}
        self._zeros = Zeros()

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, each with the columns of `SUMMARISED` at least."""
        rows = list(rows)
        for row, is_noisy in zip(rows, are_noisy(rows), strict=True):
            self.statuses[row["status"]] += 1
            self._zeros.add(row)
            if is_noisy and row["noise_source"] == "storage":
                place = row["run"], row["component"]
                self._limits.setdefault(place, Counter())[row["dtype"]] += 1
            is_late = row["step"] >= self._starts.get(row["run"], row["step"])
            if row["effective_rank"] is not None and is_late:
                self._add_ranked(row, is_noisy=is_noisy)

    def _add_ranked(self, row: Row, *, is_noisy: bool) -> None:
        self._lines.add(row)
        self._moves.add(row, is_noisy=is_noisy)
        if row["component"] == "update":
            self._updates.setdefault(row["run"], _LastUpdates()).add(row)
        if row["component"] == "merged_total":
            ends, steps = self._merged.setdefault(row["run"], (Ends(), set()))
            ends.add(End.of(row))
            steps.add(row["step"])

    def summary(self) -> Summary:
        """The summary of the rows so far."""
        findings = [
            f"{run}: the series breaks before {self._units.get(run, 'step')} {step}, and is "
            "summarised from there on"
            for run, step in self._starts.items()
        ]
        findings += [*self._moves.in_words(self._units), *self._update_ranks()]
        findings += [*self._zeros.in_words(self._units), *self._limits_in_words()]
        return Summary(self._lines.by_role, self._lines.overall, findings)

    def _update_ranks(self) -> list[str]:
        """How much of their dimensions the updates of each run use at the end."""
        findings = []
        for run, updates in self._updates.items():
            for window, last in updates.windows.items():
                per, dimensions = fmean(p for p, _, _ in last), median(d for _, _, d in last)
                findings.append(
                    f"{run}: updates of the last interval{WINDOWS[window]} have PER {per:.3f} and "
                    f"rank {median_of(rank for _, rank, _ in last) or 0:.0f} of "
                    f"{dimensions:.0f} (median)"
                )
        for run, (ends, steps) in self._merged.items():
            findings.append(
                f"{run}: after {len(steps)} merge{'s'[: len(steps) != 1]} their sum has rank "
                f"{median_of(row.rank for row in ends.last) or 0:.0f} and effective rank "
                f"{mean_rank(ends.last):.1f}"
            )
        return findings

    def _limits_in_words(self) -> list[str]:
        """What the numbers cannot say."""
        return [
            f"{run}: PER of {own.total()} {component.replace('_', ' ')} "
            f"{'matrix' if own.total() == 1 else 'matrices'} may be rounding noise of "
            f"{own.most_common(1)[0][0]} storage: see per_resolved"
            for (run, component), own in self._limits.items()
        ]


@dataclass
class _LastUpdates:
    """PER, rank and dimensions of a run's updates at the last step so far, by window."""

    step: int = -1
    windows: dict[str, list[tuple[float, float | None, int]]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        if row["step"] > self.step:
            self.step, self.windows = row["step"], {}
        if row["step"] == self.step:
            numbers = row["per"], row["numerical_rank"], min(row["rows"], row["cols"])
            self.windows.setdefault(row["window"] or "", []).append(numbers)
