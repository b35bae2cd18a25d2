"""The spectra store: one file a step, which holds every spectrum with what it was computed from.

A file holds three float64 vectors (`rankscope.results.vectors`), ``values``, ``lower`` and
``upper``, in which the spectra stand one behind the other; its description lists them in that
order. A metric or a figure needs nothing else, so a new one never touches a checkpoint. Entries
stand in the order of their places, so that the bytes of a file do not depend on who computed what
first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.durable import safe_name
from rankscope.errors import RankscopeError
from rankscope.results.vectors import OtherVersionError, read_vectors, write_vectors
from rankscope.spectra.spectrum import Norm, Spectrum, Values

VERSION = "2"  # of the arithmetic and of the file: other numbers are never reused
READABLE = ("1", "2")  # for figures: files of version 1 lack bits, norms of what changed, digests
VECTORS = ("values", "lower", "upper")


@dataclass(frozen=True)
class Entry:
    """One stored spectrum.

    Attributes
    ----------
    key
        Digest of everything that the spectrum was computed from.
    place
        Coordinates of the matrix: layer, role, component, head, expert, name.
    spectrum
        What was found.
    """

    key: str
    place: Mapping[str, int | str | None]
    spectrum: Spectrum


def store_path(folder: Path, run: str, step: int) -> Path:
    """File of a run and step in the store; the run's name never becomes a path of its own."""
    return folder / safe_name(run) / f"step-{step:08d}.safetensors"


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """Write the spectra of one step, in whatever order they come, replacing the file in one go."""
    entries = sorted(entries, key=_order)
    vectors = {
        name: np.concatenate([getattr(entry.spectrum, name) for entry in entries] or [np.empty(0)])
        for name in VECTORS
    }
    write_vectors(path, vectors, {"entries": [_described(e) for e in entries]}, version=VERSION)


def read_entries(path: Path) -> list[Entry]:
    """Read the spectra of one step; none if the file is absent or of another version.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        vectors, listing = read_vectors(path, version=VERSION, older=READABLE)
        return _entries(listing["entries"], vectors)
    except OtherVersionError:
        return []
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error


def _order(entry: Entry) -> tuple[tuple[bool, str, int], ...]:
    """By component, layer and whatever else tells places apart, then by key; None comes last."""
    place = {"component": None, "layer": None, "role": None, **entry.place, "key": entry.key}
    return tuple(
        (one is None, one if isinstance(one, str) else "", one if isinstance(one, int) else 0)
        for one in place.values()
    )


def _described(entry: Entry) -> dict[str, Any]:
    spectrum = entry.spectrum
    return {
        "key": entry.key,
        "place": dict(entry.place),
        "shape": spectrum.shape,
        "dtype": spectrum.dtype,
        "count": spectrum.max_rank,
        "noise_floor": None if math.isnan(spectrum.noise_floor) else spectrum.noise_floor,
        "noise_source": spectrum.noise_source,
        "route": spectrum.route,
        "status": spectrum.status,
        "significant_bits": spectrum.significant_bits,
        "before": spectrum.before,
        **({} if spectrum.is_scaled else {"is_scaled": False}),
    }


def _entries(described: list[dict[str, Any]], vectors: Mapping[str, Values]) -> list[Entry]:
    ends = list(accumulate((one["count"] for one in described), initial=0))
    if any(vectors[name].shape != (ends[-1],) for name in VECTORS) or ends != sorted(ends):
        raise ValueError("its counts do not fit its vectors")
    return [
        _entry(one, {name: vectors[name][start:end] for name in VECTORS})
        for one, (start, end) in zip(described, pairwise(ends), strict=True)
    ]


def _entry(described: dict[str, Any], vectors: Mapping[str, Values]) -> Entry:
    floor, before = described["noise_floor"], described.get("before")
    rows, columns = described["shape"]
    return Entry(
        described["key"],
        described["place"],
        Spectrum(
            shape=(rows, columns),
            dtype=described["dtype"],
            **vectors,
            noise_floor=math.nan if floor is None else floor,
            noise_source=described["noise_source"],
            route=described["route"],
            status=described["status"],
            significant_bits=described.get("significant_bits", 0),
            before=Norm(*before) if before else None,
            is_scaled=described.get("is_scaled", True),
        ),
    )
