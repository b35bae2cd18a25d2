"""Rows of a table as typed columns: what is written as Parquet, and kept of a step.

A number takes 8 bytes here, and no Python object: a table of a million rows is put together from
pieces of this kind without all of its rows in memory.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = Mapping[str, Any]
TEXT_KIND = "<i4"  # of numbers of words


class Numbers(NamedTuple):
    """The numbers of a column, as int64 or float64, and which of them are known."""

    values: NDArray[Any]
    known: NDArray[np.bool_]


Cells: TypeAlias = "Numbers | list[str | None]"


@dataclass(frozen=True)
class Columns:
    """Rows by column, in the order of the table.

    Examples
    --------
    >>> rows = [{"role": "q", "layer": 0, "per": 0.5}, {"role": None, "layer": None, "per": 1.0}]
    >>> columns = Columns.of(rows, ["role", "layer", "per"], whole=["layer"], text=["role"])
    >>> columns.count, list(columns.rows(["layer", "role"]))
    (2, [{'layer': 0, 'role': 'q'}, {'layer': None, 'role': None}])
    """

    cells: Mapping[str, Cells]
    count: int

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        names: Sequence[str],
        *,
        whole: Collection[str],
        text: Collection[str],
    ) -> Columns:
        """Rows as columns; what a row lacks is missing.

        Raises
        ------
        OverflowError
            If an integer has more than 64 bits.
        """
        rows = list(rows)
        cells: dict[str, Cells] = {}
        for name in names:
            column = [row.get(name) for row in rows]
            if name in text:
                cells[name] = [None if cell is None else str(cell) for cell in column]
            else:
                cells[name] = _numbers(column, np.int64 if name in whole else np.float64)
        return cls(cells, len(rows))

    def rows(self, names: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows, each with these columns, or all; None where a cell is missing."""
        asked = list(self.cells if names is None else names)
        lists = [_listed(self.cells[name]) for name in asked]
        return (dict(zip(asked, row, strict=True)) for row in zip(*lists, strict=True))

    def part(self, start: int, stop: int) -> Columns:
        """The rows from one to before another."""
        cells = {name: _part(own, start, stop) for name, own in self.cells.items()}
        return Columns(cells, min(stop, self.count) - start)


def joined(parts: Sequence[Columns]) -> Columns:
    """Parts of a table with the same columns, one below the other."""
    if len(parts) == 1:
        return parts[0]
    cells = {name: _joined([part.cells[name] for part in parts]) for name in parts[0].cells}
    return Columns(cells, sum(part.count for part in parts))


def packed(columns: Columns) -> bytes:
    """Columns as bytes, from which `unpacked` makes them again: each word is written once.

    Columns of one kind are one array, so that a table of many steps takes few operations for each.
    """
    words: dict[str | None, int] = {None: 0}
    kinds: dict[str, list[str]] = {"<f8": [], "<i8": [], TEXT_KIND: []}
    arrays: dict[str, list[NDArray[Any]]] = {kind: [] for kind in kinds}
    known = []
    for name, cells in columns.cells.items():
        if isinstance(cells, Numbers):
            kind = "<i8" if cells.values.dtype.kind == "i" else "<f8"
            arrays[kind].append(cells.values)
        else:
            kind = TEXT_KIND
            arrays[kind].append(np.array([words.setdefault(w, len(words)) for w in cells], "<i4"))
        kinds[kind].append(name)
    for kind in ("<f8", "<i8"):
        known += [columns.cells[name].known for name in kinds[kind]]  # type: ignore[union-attr]
    head = [columns.count, list(columns.cells), kinds, list(words)]
    bits = np.packbits(np.concatenate(known)) if known else np.empty(0, np.uint8)
    parts = [array.astype(kind, copy=False) for kind, some in arrays.items() for array in some]
    return b"".join(
        (json.dumps(head).encode(), b"\n", *(p.tobytes() for p in parts), bits.tobytes())
    )


def unpacked(content: bytes) -> Columns:
    """The columns that `packed` made this of."""
    head, _, rest = content.partition(b"\n")
    count, names, kinds, words = json.loads(head)
    cells: dict[str, Cells] = {}
    numbers: dict[str, NDArray[Any]] = {}
    at = 0
    for kind, own in kinds.items():
        array = np.frombuffer(rest, kind, len(own) * count, at).reshape(len(own), count)
        at += array.nbytes
        if kind == TEXT_KIND:
            pairs = zip(own, array.tolist(), strict=True)
            cells |= {name: [words[code] for code in codes] for name, codes in pairs}
        else:
            numbers |= dict(zip(own, array, strict=True))
    bits = np.unpackbits(np.frombuffer(rest, np.uint8, offset=at), count=len(numbers) * count)
    known = bits.astype(bool).reshape(len(numbers), count)
    for (name, values), own in zip(numbers.items(), known, strict=True):
        cells[name] = Numbers(values, own)
    return Columns({name: cells[name] for name in names}, count)


def _numbers(column: list[Any], kind: type[np.generic]) -> Numbers:
    known = np.fromiter((cell is not None for cell in column), bool, len(column))
    return Numbers(np.array([0 if cell is None else cell for cell in column], kind), known)


def _listed(cells: Cells) -> list[Any]:
    if not isinstance(cells, Numbers):
        return cells
    if cells.known.all():
        listed: list[Any] = cells.values.tolist()
        return listed
    pairs = zip(cells.values.tolist(), cells.known.tolist(), strict=True)
    return [value if known else None for value, known in pairs]


def _part(cells: Cells, start: int, stop: int) -> Cells:
    if isinstance(cells, Numbers):
        return Numbers(cells.values[start:stop], cells.known[start:stop])
    return cells[start:stop]


def _joined(parts: Sequence[Cells]) -> Cells:
    numbers = [part for part in parts if isinstance(part, Numbers)]
    if numbers:
        values, known = zip(*numbers, strict=True)
        return Numbers(np.concatenate(values), np.concatenate(known))
    return [word for part in parts for word in part]  # type: ignore[misc]
