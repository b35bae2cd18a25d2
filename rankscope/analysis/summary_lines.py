"""One line per component and role of a run: its first step and its last, in a few numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import NamedTuple, TypeVar

from rankscope.analysis.measured_steps import Indices, MeasuredStep
from rankscope.checkpoints.families.names import ROLES

Key = TypeVar("Key")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Line:
    """One component and role of a run, from its first step to its last; all layers together.

    An empty role stands for all roles together.

    Changes within a cycle, of whole cycles and across restarts are different objects on separate
    lines: ``window`` says which.

    ``steps`` are the first and the last, which may be the same. PER and effective rank are means
    over layers; rank and condition numbers are medians. The condition number is κ for weights,
    ``is_bound`` where it is only a lower bound; for all others it is κ over the rank, the only one
    that a matrix of low rank has.
    """

    run: str
    component: str
    role: str
    window: str
    steps: tuple[int, int]
    matrices: int
    per: tuple[float, float]
    effective_rank: tuple[float, float]
    rank: tuple[float | None, float | None]
    max_rank: float | None
    condition: tuple[float | None, float | None]
    is_bound: tuple[bool, bool]


class End(NamedTuple):
    """What is kept of a row of a first or a last step."""

    step: int
    per: float
    effective_rank: float
    rank: float | None
    max_rank: float | None
    condition: float | None
    is_bound: bool

    @classmethod
    def of(cls, found: MeasuredStep, rows: Indices) -> list[End]:
        """Make one from rows of one component that have a rank."""
        is_weight = found.matrices.components[rows[0]] == "weight"
        condition = "condition_number" if is_weight else "condition_number_r"
        names = "per", "effective_rank", "numerical_rank", "max_rank", condition
        cells = (found.columns.cells(name, rows) for name in names)
        bounds = found.columns.cells("condition_number_status", rows)
        are_bounds = [is_weight and bound == "lower-bound" for bound in bounds]
        steps = [found.step] * len(rows)
        return [*map(cls._make, zip(steps, *cells, are_bounds, strict=True))]


@dataclass
class Ends:
    """Rows of the first step and those of the last, of the rows so far."""

    first: list[tuple[MeasuredStep, Indices]] = field(default_factory=list)
    last: list[tuple[MeasuredStep, Indices]] = field(default_factory=list)

    def add(self, found: MeasuredStep, rows: Indices) -> None:
        """Keep rows of one component if they belong to the first or the last step so far."""
        self.__dict__.pop("of_rows", None)
        if not self.first or found.step < self.first[0][0].step:
            self.first = []
        if not self.first or found.step == self.first[0][0].step:
            self.first.append((found, rows))
        if not self.last or found.step > self.last[0][0].step:
            self.last = []
        if not self.last or found.step == self.last[0][0].step:
            self.last.append((found, rows))

    @cached_property
    def of_rows(self) -> tuple[list[End], list[End]]:
        """What is kept of the rows of the first step and of the last."""
        first, *others = (
            [end for found, rows in some for end in End.of(found, rows)]
            for some in ([self.first] if self._is_single else [self.first, self.last])
        )
        return first, others[0] if others else first

    @property
    def _is_single(self) -> bool:
        return bool(self.first) and self.first[0][0].step == self.last[0][0].step


class Lines:
    """The lines of rows that have a rank; not all of these are in memory."""

    def __init__(self) -> None:
        self._by_role: defaultdict[tuple[str, str, str, str], Ends] = defaultdict(Ends)

    def add(self, found: MeasuredStep) -> None:
        """Add the rows of a step."""
        for (component, window, role), rows in found.groups(found.matrices.by_role):
            self._by_role[component, found.run, window, role].add(found, rows)

    @property
    def by_role(self) -> list[Line]:
        """A line for each role."""
        lines = [_line(*ends.of_rows, *key) for key, ends in self._by_role.items()]
        return sorted(lines, key=lambda line: ROLES.index(line.role))

    @property
    def overall(self) -> list[Line]:
        """The lines of all roles together."""
        kinds = grouped(self._by_role.items(), lambda one: one[0][:3])
        return [_line(*_joined([e for _, e in own]), *kind, "") for kind, own in kinds.items()]


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by a key, in the order in which each key first occurs."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _joined(parts: Sequence[Ends]) -> tuple[list[End], list[End]]:
    """One line for all of these rows, from their first step to their last."""
    ends = [part.of_rows for part in parts]
    first = min(own[0].step for own, _ in ends)
    last = max(own[0].step for _, own in ends)
    return (
        [row for own, _ in ends for row in own if row.step == first],
        [row for _, own in ends for row in own if row.step == last],
    )


def _line(
    first: list[End], last: list[End], component: str, run: str, window: str, role: str
) -> Line:
    conditions = [_condition(end) for end in (first, last)]
    return Line(
        component=component,
        run=run,
        window=window,
        role=role,
        steps=(first[0].step, last[0].step),
        matrices=len(last),
        per=(fmean(row.per for row in first), fmean(row.per for row in last)),
        effective_rank=(mean_rank(first), mean_rank(last)),
        rank=(median_of(row.rank for row in first), median_of(row.rank for row in last)),
        max_rank=median_of(row.max_rank for row in last),
        condition=(conditions[0][0], conditions[1][0]),
        is_bound=(conditions[0][1], conditions[1][1]),
    )


def mean_rank(rows: Iterable[End]) -> float:
    """Mean effective rank."""
    return fmean(row.effective_rank for row in rows)


def median_of(numbers: Iterable[float | None]) -> float | None:
    """Median of the known numbers; None if there are none."""
    known = [number for number in numbers if number is not None]
    return float(median(known)) if known else None


def _condition(rows: list[End]) -> tuple[float | None, bool]:
    """Median condition number, and whether it is a lower bound."""
    middle = median_of(row.condition for row in rows)
    bounds = [row.condition for row in rows if row.is_bound and row.condition is not None]
    return middle, middle is not None and any(one <= middle for one in bounds)
