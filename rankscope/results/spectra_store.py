"""The spectra store: one file per step, with every spectrum and what it was computed from.

A file (`rankscope.results.vectors`) holds the values of all spectra in one float64 vector, one
after another, and describes each spectrum in that order. Intervals that follow from the values and
one bound are stored as that bound; the others are in the vectors ``lower`` and ``upper``. A metric
or a figure needs nothing else, so a new one never touches a checkpoint. Entries are ordered by
their places, so that the bytes of a file do not depend on what was computed first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.results.run_folders import run_folder
from rankscope.results.vectors import read_listed, write_vectors
from rankscope.spectra.bounds import Ends, Values, Within
from rankscope.spectra.spectrum import Cosine, Norm, Sparsity, Spectrum

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
    spectrum
        Its spectrum.
    metrics
        Its metrics by column, where it was just computed: they are not stored.
    """

    key: str
    place: Mapping[str, int | str | None]
    spectrum: Spectrum
    metrics: Mapping[str, float | int | str | None] | None = None


def store_path(folder: Path, run: str, step: int) -> Path:
    """File of a run and step in the store; a run's name cannot point outside the folder."""
    return run_folder(folder, run) / f"step-{step:08d}.safetensors"


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write the spectra of one step, given in any order, replacing the file in one go."""
    entries = sorted(entries, key=_order)
    spectra = [entry.spectrum for entry in entries]
    apart = [one for one in spectra if isinstance(one.bounds, Ends)]
    vectors = {"values": _joined([one.values for one in spectra])}
    if apart:
        vectors["lower"] = _joined([one.lower for one in apart])
        vectors["upper"] = _joined([one.upper for one in apart])
    write_vectors(path, vectors, {"entries": [_described(e) for e in entries]}, version=VERSION)


def read_entries(path: Path) -> list[Entry]:
    """Read the spectra of one step; none if the file is absent or of an unknown version.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    return read_listed(path, _entries, version=VERSION, older=READABLE)


def _joined(vectors: list[Values]) -> Values:
    return np.concatenate(vectors or [np.empty(0)])


def _order(entry: Entry) -> tuple[tuple[bool, str, int], ...]:
    """By component, layer, role and the rest of the place, then by key; None comes last."""
    place = {"component": None, "layer": None, "role": None, **entry.place, "key": entry.key}
    return tuple(
        (at is None, at if isinstance(at, str) else "", at if isinstance(at, int) else 0)
        for at in place.values()
    )


def _described(entry: Entry) -> dict[str, Any]:
    spectrum = entry.spectrum
    return {
        "key": entry.key,
        "place": dict(entry.place),
        "shape": spectrum.shape,
        "dtype": spectrum.dtype,
        "count": spectrum.max_rank,
        "within": spectrum.bounds if isinstance(spectrum.bounds, Within) else None,
        "noise_floor": None if math.isnan(spectrum.noise_floor) else spectrum.noise_floor,
        "noise_source": spectrum.noise_source,
        "route": spectrum.route,
        "status": spectrum.status,
        "significant_bits": spectrum.significant_bits,
        "before": spectrum.before,
        "cosine": spectrum.cosine,
        "entries": spectrum.entries,
        **({} if spectrum.is_scaled else {"is_scaled": False}),
    }


def _entries(about: Mapping[str, Any], vectors: Mapping[str, Values]) -> list[Entry]:
    described = about["entries"]
    counts = [one["count"] for one in described]
    apart = [count for one, count in zip(described, counts, strict=True) if not one.get("within")]
    values = _cut(vectors["values"], counts)
    none = np.empty(0)
    ends = (_cut(vectors.get(name, none), apart) for name in ("lower", "upper"))
    intervals = (Ends(*pair) for pair in zip(*ends, strict=True))
    return [
        _entry(one, own, Within(*one["within"]) if one.get("within") else next(intervals))
        for one, own in zip(described, values, strict=True)
    ]


def _cut(vector: Values, counts: list[int]) -> list[Values]:
    """The pieces of a vector that have these lengths."""
    ends = list(accumulate(counts, initial=0))
    if vector.shape != (ends[-1],) or ends != sorted(ends):
        raise ValueError("its counts do not fit its vectors")
    return [vector[start:end] for start, end in pairwise(ends)]


def _entry(described: dict[str, Any], values: Values, bounds: Within | Ends) -> Entry:
    _check(described)
    floor, before = described["noise_floor"], described.get("before")
    cosine, entries = described.get("cosine"), described.get("entries")
    rows, columns = described["shape"]
    return Entry(
        described["key"],
        described["place"],
        Spectrum(
            shape=(rows, columns),
            dtype=described["dtype"],
            values=values,
            bounds=bounds,
            noise_floor=math.nan if floor is None else floor,
            noise_source=described["noise_source"],
            route=described["route"],
            status=described["status"],
            significant_bits=described.get("significant_bits", 0),
            before=Norm(*before) if before else None,
            cosine=Cosine(*cosine) if cosine else None,
            entries=Sparsity(*entries) if entries else None,
            is_scaled=described.get("is_scaled", True),
        ),
    )


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
