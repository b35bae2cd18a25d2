"""Rows of a table as typed columns, as written to Parquet and kept for each step.

A number takes 8 bytes here, and no Python object: a table of a million rows is put together from
pieces of this kind without all of its rows in memory.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = Mapping[str, Any]
Words: TypeAlias = tuple[str | None, ...]
ALL = slice(None)
FLOATS, INTEGERS, CODES = "<f8", "<i8", "<i4"  # the last of numbers of words


class Numbers(NamedTuple):
    """The numbers of a column, as int64 or float64, and which of them are known."""

    values: NDArray[Any]
    known: NDArray[np.bool_]


class Texts(NamedTuple):
    """The texts of a column, as numbers of words; None is the word of a missing text."""

    codes: NDArray[np.int32]
    words: Words


@dataclass(frozen=True, eq=False)
class Columns:
    """Rows by column, in the order of the table.

    Columns of one kind are one array, so that a table of many steps takes few operations for each.

    Attributes
    ----------
    names
        All columns.
    kinds
        The columns of each kind: ``<f8``, ``<i8`` and, for text, ``<i4``.
    numbers
        By kind, one line for each of its columns.
    known
        Which floating-point numbers and which integers are known, in this order.

    Examples
    --------
    >>> rows = [{"role": "q", "layer": 0, "per": 0.5}, {"role": None, "layer": None, "per": 1.0}]
    >>> columns = Columns.of(rows, ["role", "layer", "per"], whole=["layer"], text=["role"])
    >>> columns.count, list(columns.rows(["layer", "role"]))
    (2, [{'layer': 0, 'role': 'q'}, {'layer': None, 'role': None}])
    """

    names: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, NDArray[Any]]
    known: NDArray[np.bool_]
    words: Words
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
        kinds = {
            FLOATS: tuple(name for name in names if name not in whole and name not in text),
            INTEGERS: tuple(name for name in names if name in whole and name not in text),
            CODES: tuple(name for name in names if name in text),
        }
        numbers = {kind: np.zeros((len(own), len(rows)), kind) for kind, own in kinds.items()}
        known = np.zeros((len(names) - len(kinds[CODES]), len(rows)), bool)
        words: dict[str | None, int] = {None: 0}
        lines = iter(known)
        for kind in (FLOATS, INTEGERS):
            for name, values in zip(kinds[kind], numbers[kind], strict=True):
                column = [row.get(name) for row in rows]
                next(lines)[:] = [cell is not None for cell in column]
                values[:] = [0 if cell is None else cell for cell in column]
        for name, codes in zip(kinds[CODES], numbers[CODES], strict=True):
            column = [row.get(name) for row in rows]
            texts = [None if cell is None else str(cell) for cell in column]
            codes[:] = [words.setdefault(word, len(words)) for word in texts]
        return cls(tuple(names), kinds, numbers, known, (*words,), len(rows))

    def column(self, name: str) -> Numbers | Texts:
        """One column."""
        return self.texts(name) if name in self.kinds[CODES] else self.numeric(name)

    def texts(self, name: str) -> Texts:
        """A column of text."""
        return Texts(self.numbers[CODES][self.kinds[CODES].index(name)], self.words)

    def numeric(self, name: str) -> Numbers:
        """A column of numbers."""
        floats, integers = self.kinds[FLOATS], self.kinds[INTEGERS]
        if name in floats:
            at = floats.index(name)
            return Numbers(self.numbers[FLOATS][at], self.known[at])
        at = integers.index(name)
        return Numbers(self.numbers[INTEGERS][at], self.known[len(floats) + at])

    def cells(self, name: str, rows: NDArray[np.intp] | slice = ALL) -> list[Any]:
        """A column as a list, of these rows or of all; None where a cell is missing."""
        if name in self.kinds[CODES]:
            return [self.words[code] for code in self.texts(name).codes[rows].tolist()]
        values, known = (array[rows] for array in self.numeric(name))
        pairs = zip(values.tolist(), known.tolist(), strict=True)
        return [value if is_known else None for value, is_known in pairs]

    def rows_with(self, name: str, text: str) -> NDArray[np.intp]:
        """The numbers of the rows that have this text in a column."""
        code = self.words.index(text) if text in self.words else -1
        return np.flatnonzero(self.texts(name).codes == code)

    def rows(self, names: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows, each with these columns, or all; None where a cell is missing."""
        asked = list(self.names if names is None else names)
        lists = [self.cells(name) for name in asked]
        return (dict(zip(asked, row, strict=True)) for row in zip(*lists, strict=True))

    def part(self, start: int, stop: int) -> Columns:
        """The rows from one to before another."""
        numbers = {kind: values[:, start:stop] for kind, values in self.numbers.items()}
        known, count = self.known[:, start:stop], min(stop, self.count) - start
        return Columns(self.names, self.kinds, numbers, known, self.words, count)


def joined(parts: Sequence[Columns]) -> Columns:
    """Parts of a table with the same columns, one below the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    words, recoded = _common_words(parts)
    numbers = {
        kind: np.concatenate([part.numbers[kind] for part in parts], axis=1)
        for kind in (FLOATS, INTEGERS)
    }
    numbers[CODES] = np.concatenate(recoded, axis=1)
    known = np.concatenate([part.known for part in parts], axis=1)
    return Columns(first.names, first.kinds, numbers, known, words, known.shape[1])


def beside(left: Columns, right: Columns) -> Columns:
    """Columns of the same rows, the second after the first."""
    words, codes = _common_words([left, right])
    numbers = {
        kind: np.concatenate([left.numbers[kind], right.numbers[kind]])
        for kind in (FLOATS, INTEGERS)
    }
    numbers[CODES] = np.concatenate(codes)
    known = [
        part for one in (left, right) for part in np.split(one.known, [len(one.kinds[FLOATS])])
    ]
    return Columns(
        left.names + right.names,
        {kind: own + right.kinds[kind] for kind, own in left.kinds.items()},
        numbers,
        np.concatenate([known[0], known[2], known[1], known[3]]),
        words,
        left.count,
    )


def _common_words(parts: Sequence[Columns]) -> tuple[Words, list[NDArray[np.int32]]]:
    """The words of all parts, and the texts of each as numbers of these."""
    words = {word: code for code, word in enumerate(parts[0].words)}
    own, codes = parts[0].words, None
    recoded = []
    for part in parts:
        if part.words is not own and part.words != own:
            own = part.words
            codes = np.array([words.setdefault(word, len(words)) for word in own], CODES)
        recoded.append(part.numbers[CODES] if codes is None else codes[part.numbers[CODES]])
    return (*words,), recoded


def packed(columns: Columns) -> bytes:
    """Columns as bytes, from which `unpacked` makes them again: each word is written once."""
    head = [columns.count, columns.names, columns.kinds, columns.words]
    arrays = (columns.numbers[kind].tobytes() for kind in (FLOATS, INTEGERS, CODES))
    bits = np.packbits(columns.known).tobytes()
    return b"".join((json.dumps(head).encode(), b"\n", *arrays, bits))


def unpacked(content: bytes) -> Columns:
    """The columns that `packed` turned into these bytes."""
    head, _, rest = content.partition(b"\n")  # a copy, so that the numbers are aligned
    count, names, kinds, words = _head(head)
    numbers, at = {}, 0
    for kind, own in kinds.items():
        shape = len(own), count
        numbers[kind] = np.frombuffer(rest, kind, len(own) * count, at).reshape(shape)
        at += numbers[kind].nbytes
    shape = len(kinds[FLOATS]) + len(kinds[INTEGERS]), count
    bits = np.unpackbits(np.frombuffer(rest, np.uint8, offset=at), count=shape[0] * count)
    return Columns(names, kinds, numbers, bits.view(bool).reshape(shape), words, count)


@lru_cache(maxsize=4)
def _head(line: bytes) -> tuple[int, tuple[str, ...], dict[str, tuple[str, ...]], Words]:
    """What `packed` says of the arrays: the same for most steps of a run."""
    count, names, kinds, words = json.loads(line)
    return count, (*names,), {kind: (*own,) for kind, own in kinds.items()}, (*words,)
