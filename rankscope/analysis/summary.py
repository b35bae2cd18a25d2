"""The answer in brief: how PER and condition numbers moved, and what stands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from rankscope.analysis.measured_steps import Indices, Matrices, MeasuredStep, iter_measured
from rankscope.analysis.moves import Moves
from rankscope.analysis.summary_lines import Ends, Line, Lines, mean_rank, median_of
from rankscope.analysis.zeros import Zeros
from rankscope.results.summary_tables import WINDOWS
from rankscope.results.typed_columns import Columns


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
        self._updates: dict[str, Ends] = {}
        self._merged: dict[str, tuple[Ends, set[int]]] = {}
        self._limits: dict[tuple[str, str], Counter[str]] = {}
        self._zeros = Zeros()
        self._matrices: Matrices | None = None

    def add(self, columns: Columns) -> None:
        """Add rows of the table."""
        for found in iter_measured(columns, self._matrices):
            self._matrices = found.matrices
            self.statuses.update(found.columns.cells("status"))
            self._zeros.add(found)
            self._add_limits(found)
            if found.step >= self._starts.get(found.run, found.step):
                self._add_ranked(found)

    def _add_limits(self, found: MeasuredStep) -> None:
        stored = found.columns.rows_with("noise_source", "storage")
        limited = stored[found.are_noisy[stored]]
        for row, dtype in zip(limited, found.columns.cells("dtype", limited), strict=True):
            place = found.run, found.matrices.components[row]
            self._limits.setdefault(place, Counter())[dtype] += 1

    def _add_ranked(self, found: MeasuredStep) -> None:
        self._lines.add(found)
        self._moves.add(found)
        for component, rows in found.groups(found.matrices.by_component):
            if component == "update":
                self._updates.setdefault(found.run, Ends()).add(found, rows)
            if component == "merged_total":
                ends, steps = self._merged.setdefault(found.run, (Ends(), set()))
                ends.add(found, rows)
                steps.add(found.step)

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
        for run, ends in self._updates.items():
            for window, last in _by_window(ends.last).items():
                per, dimensions = fmean(p for p, _, _ in last), median(d for _, _, d in last)
                findings.append(
                    f"{run}: updates of the last interval{WINDOWS[window]} have PER {per:.3f} and "
                    f"rank {median_of(rank for _, rank, _ in last) or 0:.0f} of "
                    f"{dimensions:.0f} (median)"
                )
        for run, (ends, steps) in self._merged.items():
            sums = ends.of_rows[1]
            findings.append(
                f"{run}: after {len(steps)} merge{'s'[: len(steps) != 1]} their sum has rank "
                f"{median_of(row.rank for row in sums) or 0:.0f} and effective rank "
                f"{mean_rank(sums):.1f}"
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


def _by_window(
    updates: Iterable[tuple[MeasuredStep, Indices]],
) -> dict[str, list[tuple[float, float | None, int]]]:
    """PER, rank and dimensions of updates, by window."""
    windows: dict[str, list[tuple[float, float | None, int]]] = {}
    for found, rows in updates:
        names = "per", "numerical_rank", "rows", "cols"
        cells = zip(*(found.columns.cells(name, rows) for name in names), strict=True)
        for row, (per, rank, height, width) in zip(rows, cells, strict=True):
            own = windows.setdefault(found.matrices.windows[row], [])
            own.append((per, rank, min(height, width)))
    return windows
