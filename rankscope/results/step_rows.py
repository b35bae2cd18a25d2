"""The rows of one run and step, kept beside its spectra: the table is put together from them.

A file (`rankscope.results.vectors`) holds them twice, packed as typed columns and as lines of CSV,
so that a call that finds a step unchanged neither measures nor formats its matrices again. It is no
more than a shortcut: one that is damaged or missing is made again from the store of spectra.
"""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from rankscope.durable import digest_of, naming, scratch_file
from rankscope.errors import DAMAGE, RankscopeError
from rankscope.results.columns import COLUMNS, MEASURED, TEXT, WHOLE, WINDOW
from rankscope.results.csv_tables import as_csv, csv_lines, in_utf8
from rankscope.results.measure import Row
from rankscope.results.measured import PLACE, columns_of
from rankscope.results.spectra_store import Entry
from rankscope.results.typed_columns import Columns, beside, packed, unpacked
from rankscope.results.vectors import OtherVersionError, read_vectors, write_vectors

VERSION = "3"
FASTEST = 1  # level of compression: others take longer than the numbers get smaller


@dataclass(frozen=True)
class StepRows:
    """Rows of the table in its order, packed: about half a kilobyte for each.

    Attributes
    ----------
    about
        Further facts about the step, as JSON can hold them.
    count, measured
        Number of rows, and of those that are measurements.
    """

    about: Mapping[str, Any]
    count: int
    measured: int
    cells: bytes = field(repr=False)
    lines: bytes = field(repr=False)

    @classmethod
    def of(cls, rows: Sequence[Row], about: Mapping[str, Any]) -> StepRows:
        """Pack rows that were just made."""
        columns = Columns.of(rows, COLUMNS, whole=WHOLE, text=TEXT)
        return cls._of(columns, as_csv(rows, COLUMNS, heading=False), about)

    @classmethod
    def of_entries(
        cls, run: str, step: int, entries: Sequence[Entry], about: Mapping[str, Any]
    ) -> StepRows:
        """Rows of a run and step; measures the spectra unless their workers did."""
        measured = [entry.measured for entry in entries]
        places = [_placed(run, step, entry) for entry in entries]
        first = Columns.of(places, PLACE, whole=WHOLE, text=TEXT)
        columns = beside(first, columns_of(measured))
        starts = csv_lines(map(place.get, PLACE) for place in places)
        pairs = zip(starts, measured, strict=True)
        return cls._of(columns, in_utf8(f"{start},{one.line}" for start, one in pairs), about)

    @classmethod
    def _of(cls, columns: Columns, lines: bytes, about: Mapping[str, Any]) -> StepRows:
        statuses = columns.cells("status")
        return cls(
            about,
            columns.count,
            sum(status in MEASURED for status in statuses),
            zlib.compress(packed(columns), FASTEST),
            zlib.compress(lines, FASTEST),
        )

    @property
    def columns(self) -> Columns:
        """The rows by column."""
        return unpacked(zlib.decompress(self.cells))

    @property
    def csv(self) -> bytes:
        """The rows as lines of the table."""
        return zlib.decompress(self.lines)

    def load(self) -> StepRows:
        """These rows."""
        return self


@dataclass(frozen=True)
class Spooled:
    """`StepRows` in the file of a `Spool`."""

    about: Mapping[str, Any]
    count: int
    measured: int
    spool: Spool = field(repr=False)
    at: int
    sizes: tuple[int, int]

    def load(self) -> StepRows:
        """The rows, read again."""
        cells, lines = self.spool.read(self.at, self.sizes)
        return StepRows(self.about, self.count, self.measured, cells, lines)


KeptRows: TypeAlias = StepRows | Spooled


class Spool:
    """Rows of a call that wait on the disk until the table is put together.

    They are in a private file of the call: unlike what is kept of a step in the results folder, no
    other call can change it.

    Attributes
    ----------
    folder
        The results folder, where the file is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        self._end = 0

    def add(self, rows: StepRows) -> KeptRows:
        """Put rows on the disk.

        Raises
        ------
        OSError
            If the disk is full.
        """
        with naming(self.folder):
            if self._file is None:
                self._file = scratch_file(self.folder)
                weakref.finalize(self, self._file.close)
            self._file.seek(self._end)
            self._file.write(rows.cells)
            self._file.write(rows.lines)
        sizes = len(rows.cells), len(rows.lines)
        kept = Spooled(rows.about, rows.count, rows.measured, self, self._end, sizes)
        self._end += sum(sizes)
        return kept

    def read(self, at: int, sizes: tuple[int, int]) -> tuple[bytes, bytes]:
        """The packed cells and lines at a place of the file."""
        assert self._file is not None
        with naming(self.folder):
            self._file.seek(at)
            return self._file.read(sizes[0]), self._file.read(sizes[1])


def row_of(run: str, step: int, entry: Entry) -> Row:
    """One row of the table; measures the spectrum unless its worker did."""
    return _placed(run, step, entry) | entry.measured.row


def _placed(run: str, step: int, entry: Entry) -> Row:
    return {"run": run, "step": step, **dict.fromkeys(WINDOW), **entry.place}


def iter_rows(parts: Sequence[KeptRows]) -> Iterator[Row]:
    """The rows of all parts."""
    return (row for part in parts for row in part.load().columns.rows())


def write_step_rows(path: Path, made: StepRows) -> None:
    """Write the rows of a step, replacing the file in one go."""
    vectors = {name: np.frombuffer(getattr(made, name), np.uint8) for name in ("cells", "lines")}
    known = {"columns": _columns(), "count": made.count, "measured": made.measured}
    write_vectors(path, vectors, {"rows": known, **made.about}, version=VERSION)


def read_step_rows(path: Path) -> StepRows | None:
    """Read the rows of a step; None if they are not there as this version writes them."""
    try:
        vectors, about = read_vectors(path, version=VERSION)
        known = about.pop("rows")
        if known["columns"] != _columns():
            return None
        packed = (vectors[name].tobytes() for name in ("cells", "lines"))
        return StepRows(about, known["count"], known["measured"], *packed)
    except (OtherVersionError, RankscopeError, *DAMAGE):
        return None


@cache
def _columns() -> str:
    """Digest of the names of the columns."""
    return digest_of(repr(COLUMNS).encode())
