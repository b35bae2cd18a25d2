"""The rows of a monitored run: those of steps in hand, and all others packed on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rankscope.analysis.plan import table_order
from rankscope.errors import RankscopeError
from rankscope.results.measure import Row
from rankscope.results.step_rows import KeptRows, Spool, StepRows
from rankscope.watching.kept_rows import iter_table


class RunRows:
    """Rows by step, whose number the memory does not bound.

    Parameters
    ----------
    spool
        Where rows are put once their step is no longer in hand.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._in_hand: dict[int, list[Row]] = {}
        self._packed: dict[int, KeptRows] = {}

    def __iter__(self) -> Iterator[int]:
        """The steps that have rows, ascending."""
        return iter(sorted(self._in_hand.keys() | self._packed.keys()))

    def __contains__(self, step: int) -> bool:
        return step in self._in_hand or step in self._packed

    def __getitem__(self, step: int) -> list[Row]:
        """The rows of a step, none of one that has none; not to be changed."""
        if step in self._in_hand:
            return self._in_hand[step]
        return [*self._packed[step].load().columns.rows()] if step in self._packed else []

    def __setitem__(self, step: int, rows: list[Row]) -> None:
        """Replace the rows of a step, which is in hand from now on."""
        self._in_hand[step] = rows

    def take(self, step: int) -> list[Row]:
        """The rows of a step, to be changed."""
        return self._in_hand.setdefault(step, self[step])

    def drop(self, step: int) -> None:
        """Forget a step."""
        self._in_hand.pop(step, None)
        self._packed.pop(step, None)

    def put_away(self) -> None:
        """Pack the rows of all steps in hand."""
        for step in sorted(self._in_hand):
            rows = sorted(self._in_hand[step], key=_order)
            self._packed[step] = self._spool.add(StepRows.of(rows, {}))
            del self._in_hand[step]

    def parts(self) -> tuple[KeptRows, ...]:
        """All rows, by step."""
        self.put_away()
        return tuple(self._packed[step] for step in self)


def rows_of_others(out: Path, run: str, spool: Spool) -> tuple[KeptRows, ...]:
    """What the table in a results folder holds of other runs; nothing if it cannot be read."""
    try:
        return tuple(
            spool.add(StepRows.of(rows, {})) for (name, _), rows in iter_table(out) if name != run
        )
    except RankscopeError:
        return ()


def _order(row: Row) -> tuple[object, ...]:
    return table_order(
        kind=row["component"],
        layer=row["layer"],
        role=row["role"],
        expert=row["expert"],
        name=row["name"],
    )
