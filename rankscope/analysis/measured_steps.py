"""The rows of one run and step, as a summary takes them: their matrices and numbers.

Steps mostly have the same matrices, so facts about these are found out once, and gathering a step
takes a few operations on arrays.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankscope.metrics import noise_matters
from rankscope.results.typed_columns import Columns, Words

Indices = NDArray[np.intp]
KeyT = TypeVar("KeyT", bound=Hashable)

PLACE = ("layer", "role", "head", "expert", "name")  # where in the model a matrix is
TEXTS, INTEGERS = ("component", "window", "role", "name"), ("layer", "head", "expert")
NOTHING = np.empty(0, np.intp)


@dataclass(frozen=True, eq=False)
class Matrices:
    """Which matrices the rows of a step describe.

    Attributes
    ----------
    words, mark
        Words and numbers that other rows share if they describe the same matrices.
    windows
        The window of each row; empty if it is not a change.
    places
        The values of `PLACE` of each row.
    """

    words: Words
    mark: bytes
    components: list[str]
    windows: list[str]
    places: list[tuple[Any, ...]]

    @classmethod
    def of(cls, columns: Columns, before: Matrices | None = None) -> Matrices:
        """The matrices of rows; those of rows ``before`` if they are the same."""
        mark = _mark(columns)
        if before is not None and (before.words, before.mark) == (columns.words, mark):
            return before
        windows = [window or "" for window in columns.cells("window")]
        places = zip(*(columns.cells(name) for name in PLACE), strict=True)
        return cls(columns.words, mark, columns.cells("component"), windows, [*places])

    @cached_property
    def by_component(self) -> dict[str, Indices]:
        """The rows of each component."""
        return _grouped(self.components)

    @cached_property
    def by_window(self) -> dict[tuple[str, str], Indices]:
        """The rows of each component and window."""
        return _grouped([*zip(self.components, self.windows, strict=True)])

    @cached_property
    def by_role(self) -> dict[tuple[str, str, str], Indices]:
        """The rows of each component, window and role."""
        roles = [place[1] for place in self.places]
        return _grouped([*zip(self.components, self.windows, roles, strict=True)])


@dataclass(frozen=True, eq=False)
class MeasuredStep:
    """The rows of one run and step."""

    run: str
    step: int
    matrices: Matrices
    columns: Columns

    @cached_property
    def are_ranked(self) -> NDArray[np.bool_]:
        """Which rows have a rank."""
        return self.columns.numeric("effective_rank").known

    @cached_property
    def are_noisy(self) -> NDArray[np.bool_]:
        """In which rows rounding can be more than 1 % of the effective rank."""
        columns = (self.columns.numeric(name) for name in ("per", "per_resolved"))
        return noise_matters(*(np.where(known, values, np.nan) for values, known in columns))

    def ranked(self, rows: Indices) -> Indices:
        """Those rows of some that have a rank."""
        return rows[self.are_ranked[rows]]

    def groups(
        self, groups: Mapping[KeyT, Indices], *, certain: bool = False
    ) -> list[tuple[KeyT, Indices]]:
        """The rows of each group that have a rank, in the order of the first row of each.

        Parameters
        ----------
        certain
            Leaves out those whose rank may be rounding noise.
        """
        taken = self.are_ranked & ~self.are_noisy if certain else self.are_ranked
        if taken.all():
            return [*groups.items()]
        found = [(key, rows[taken[rows]]) for key, rows in groups.items()]
        return sorted((pair for pair in found if len(pair[1])), key=lambda pair: int(pair[1][0]))


def iter_measured(columns: Columns, before: Matrices | None = None) -> Iterator[MeasuredStep]:
    """Rows in the order of the table, by run and step."""
    runs, steps = columns.texts("run"), columns.numeric("step")
    codes, values = runs.codes, steps.values
    is_new = (codes[1:] != codes[:-1]) | (values[1:] != values[:-1])
    ends = [*(np.flatnonzero(is_new) + 1).tolist(), columns.count] if columns.count else []
    for start, stop in pairwise([0, *ends]):
        own = columns.part(start, stop) if len(ends) > 1 else columns
        before = Matrices.of(own, before)
        run = runs.words[runs.codes[start]]
        yield MeasuredStep(str(run), int(steps.values[start]), before, own)


def _mark(columns: Columns) -> bytes:
    codes = (columns.texts(name).codes for name in TEXTS)
    numbers = (array for name in INTEGERS for array in columns.numeric(name))
    return b"".join(array.tobytes() for array in (*codes, *numbers))


def _grouped(keys: Sequence[KeyT]) -> dict[KeyT, Indices]:
    groups: dict[KeyT, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return {key: np.array(own, np.intp) for key, own in groups.items()}
