"""What a worker hands over of a matrix: its spectrum and metrics, as the store and table have them.

One process puts the files together, and may do so for many workers. So whatever takes time for each
matrix is done where the matrix was decomposed: its numbers, their text in CSV and in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rankscope.results.columns import COLUMNS, KEY, TEXT, WHOLE, WINDOW
from rankscope.results.csv_tables import csv_lines
from rankscope.results.measure import FULL_RANK, Number, measure
from rankscope.results.stored_spectra import StoredSpectrum, numbers_in
from rankscope.results.typed_columns import CODES, FLOATS, INTEGERS, Columns
from rankscope.spectra.spectrum import Spectrum

PLACE = (*KEY, *WINDOW)  # the first columns, which the worker does not know
OWN = COLUMNS[len(PLACE) :]
WORDS = tuple(name for name in OWN if name in TEXT)
KINDS = {
    FLOATS: tuple(name for name in OWN if name not in WHOLE and name not in TEXT),
    INTEGERS: tuple(name for name in OWN if name in WHOLE and name not in TEXT),
    CODES: WORDS,
}
NUMBERS = (*KINDS[FLOATS], *KINDS[INTEGERS])


class Measured(NamedTuple):
    """A spectrum and the cells of its row in the columns of `OWN`.

    Attributes
    ----------
    status
        That of the spectrum.
    has_cosine
        Whether the spectrum has one.
    numbers, known
        The cells of `NUMBERS` as float64, and whether each is known, a byte for each.
    words
        The cells of `WORDS`.
    line
        All cells as CSV.
    """

    stored: StoredSpectrum
    status: str
    has_cosine: bool
    numbers: bytes
    known: bytes
    words: tuple[str | None, ...]
    line: str

    @classmethod
    def of(cls, spectrum: Spectrum, component: str) -> Measured:
        """Measure a spectrum of a matrix of this component."""
        rows, cols = spectrum.shape
        row: dict[str, Any] = {
            **{"rows": rows, "cols": cols, "dtype": spectrum.dtype, "status": spectrum.status},
            **measure(spectrum, whole=component in FULL_RANK),
        }
        numbers = [row[name] for name in NUMBERS]
        (line,) = csv_lines([[row[name] for name in OWN]])
        return cls(
            StoredSpectrum.of(spectrum),
            spectrum.status,
            spectrum.cosine is not None,
            np.array([0 if one is None else one for one in numbers], np.float64).tobytes(),
            bytes([one is not None for one in numbers]),
            tuple(None if row[name] is None else str(row[name]) for name in WORDS),
            line,
        )

    @property
    def spectrum(self) -> Spectrum:
        """The spectrum."""
        return self.stored.spectrum

    @property
    def row(self) -> dict[str, Number]:
        """The cells by column."""
        pairs = zip(NUMBERS, numbers_in(self.numbers).tolist(), self.known, strict=True)
        cells: dict[str, Number] = dict(zip(WORDS, self.words, strict=True))
        for name, number, known in pairs:
            cells[name] = None if not known else int(number) if name in WHOLE else number
        return {name: cells[name] for name in OWN}


def columns_of(measured: Sequence[Measured]) -> Columns:
    """The columns of `OWN` of several matrices, one row for each."""
    shape = len(measured), len(NUMBERS)
    numbers = numbers_in(b"".join([one.numbers for one in measured])).reshape(shape).T
    known = np.frombuffer(b"".join([one.known for one in measured]), np.bool_).reshape(shape).T
    words: dict[str | None, int] = {None: 0}
    codes = [
        [words.setdefault(one.words[at], len(words)) for one in measured]
        for at in range(len(WORDS))
    ]
    floats = len(KINDS[FLOATS])
    arrays = {
        FLOATS: numbers[:floats],
        INTEGERS: numbers[floats:].astype(INTEGERS),
        CODES: np.array(codes, CODES).reshape(len(WORDS), len(measured)),
    }
    return Columns(OWN, KINDS, arrays, known, (*words,), len(measured))
