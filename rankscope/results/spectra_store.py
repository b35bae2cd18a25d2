"""The spectra store: one file per step, with every spectrum and what it was computed from.

A file (`rankscope.results.vectors`) holds the values of all spectra in one float64 vector, one
after another, and describes each spectrum in that order. Intervals that follow from the values and
one bound are stored as that bound; the others are in the vectors ``lower`` and ``upper``. A metric
or a figure needs nothing else, so a new one never touches a checkpoint. Entries are ordered by
their places, so that the bytes of a file do not depend on what was computed first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.results.measured import Measured
from rankscope.results.run_folders import run_folder
from rankscope.results.stored_spectra import StoredSpectrum, numbers_in, spectrum_of
from rankscope.results.vectors import Json, as_json, read_listed, write_vectors
from rankscope.spectra.bounds import Ends, Values
from rankscope.spectra.spectrum import Spectrum

VERSION = "4"  # of arithmetic and file: numbers of other versions are never reused
# For figures. Files of version 1 lack bits, norms of what changed, and digests; versions 1 and 2
# store the interval of every value; versions 1 to 3 lack what the singular values do not show:
# cosines and entries.
READABLE = ("1", "2", "3")
MATRIX = ("component", "name", "head", "expert")  # which matrix of its step an entry is of


@dataclass(frozen=True)
class Entry:
    """One stored spectrum.

    Attributes
    ----------
    key
        Digest of everything that the spectrum was computed from.
    place
        Where the matrix is: layer, role, component, head, expert, name; since, restarts, window.
    found
        Its spectrum; with its metrics, which are not stored, where it was just computed.
    """

    key: str
    place: Mapping[str, int | str | None]
    found: Spectrum | Measured

    @property
    def spectrum(self) -> Spectrum:
        """Its spectrum."""
        return self.found.spectrum if isinstance(self.found, Measured) else self.found

    @property
    def measured(self) -> Measured:
        """Its spectrum with its metrics."""
        found = self.found
        if isinstance(found, Measured):
            return found
        return Measured.of(found, str(self.place["component"]))

    @property
    def status(self) -> str:
        """The status of its spectrum."""
        return self.found.status

    @property
    def has_cosine(self) -> bool:
        """Whether its spectrum is that of a change whose cosine with the one before is known."""
        found = self.found
        return found.has_cosine if isinstance(found, Measured) else found.cosine is not None


def store_path(folder: Path, run: str, step: int) -> Path:
    """File of a run and step in the store; a run's name cannot point outside the folder."""
    return run_folder(folder, run) / f"step-{step:08d}.safetensors"


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write the spectra of one step, given in any order, replacing the file in one go."""
    entries = sorted(entries, key=_order)
    stored = [_stored(entry.found) for entry in entries]
    apart = [one.ends for one in stored if one.ends is not None]
    vectors = {"values": numbers_in(b"".join([one.values for one in stored]))}
    if apart:
        lower, upper = zip(*apart, strict=True)
        vectors |= {"lower": numbers_in(b"".join(lower)), "upper": numbers_in(b"".join(upper))}
    described = ",".join(map(_described, entries, stored))
    write_vectors(path, vectors, Json(f'{{"entries":[{described}]}}'), version=VERSION)


def read_entries(path: Path) -> list[Entry]:
    """Read the spectra of one step; none if the file is absent or of an unknown version.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    return read_listed(path, _entries, version=VERSION, older=READABLE)


def _stored(found: Spectrum | Measured) -> StoredSpectrum:
    return found.stored if isinstance(found, Measured) else StoredSpectrum.of(found)


def _order(entry: Entry) -> tuple[tuple[bool, str, int], ...]:
    """By component, layer, role and the rest of the place, then by key; None comes last."""
    place = {"component": None, "layer": None, "role": None, **entry.place, "key": entry.key}
    return tuple(
        [
            (False, at, 0)
            if isinstance(at, str)
            else (at is None, "", at if isinstance(at, int) else 0)
            for at in place.values()
        ]
    )


def _described(entry: Entry, stored: StoredSpectrum) -> str:
    """An entry as JSON: its key and its place, then what describes its spectrum."""
    place = entry.place if isinstance(entry.place, dict) else dict(entry.place)
    return f"{as_json({'key': entry.key, 'place': place})[:-1]},{stored.described[1:]}"


def _entries(about: Mapping[str, Any], vectors: Mapping[str, Values]) -> list[Entry]:
    described = about["entries"]
    counts = [one["count"] for one in described]
    apart = [count for one, count in zip(described, counts, strict=True) if not one.get("within")]
    values = _cut(vectors["values"], counts)
    none = np.empty(0)
    ends = (_cut(vectors.get(name, none), apart) for name in ("lower", "upper"))
    intervals = (Ends(*pair) for pair in zip(*ends, strict=True))
    return [
        _entry(one, own, None if one.get("within") else next(intervals))
        for one, own in zip(described, values, strict=True)
    ]


def _cut(vector: Values, counts: list[int]) -> list[Values]:
    """The pieces of a vector that have these lengths."""
    ends = list(accumulate(counts, initial=0))
    if vector.shape != (ends[-1],) or ends != sorted(ends):
        raise ValueError("its counts do not fit its vectors")
    return [vector[start:end] for start, end in pairwise(ends)]


def _entry(described: dict[str, Any], values: Values, ends: Ends | None) -> Entry:
    _check(described)
    return Entry(described["key"], described["place"], spectrum_of(described, values, ends))


def _check(described: Mapping[str, Any]) -> None:
    """Refuse a description that no version writes: in older ones, no digest shows damage."""
    place, floor = described["place"], described["noise_floor"]
    numbers = [*described["shape"], described["count"]]
    for name in ("within", "before", "cosine", "entries"):
        numbers += described.get(name) or ()
    if not all(isinstance(place[name], int | str | None) for name in (*MATRIX, "layer", "role")):
        raise TypeError("a place has an entry that is neither a number nor a name")
    if not all(isinstance(number, int | float | None) for number in (*numbers, floor)):
        raise TypeError("it has a word or a list in place of a number")
