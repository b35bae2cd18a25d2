"""The spectra store: one file a step, which holds every spectrum with what it was computed from.

A file is a safetensors file of three float64 vectors, ``values``, ``lower`` and ``upper``, in which
the spectra stand one behind the other; its metadata lists them in that order. A metric or a figure
needs nothing else, so a new one never touches a checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rankscope.atomic import safe_name, write_atomically
from rankscope.errors import RankscopeError
from rankscope.spectra.spectrum import Norm, Spectrum

VERSION = "2"  # of the arithmetic and of the file: other numbers are never reused
READABLE = ("1", "2")  # for figures: files of version 1 lack bits and norms of what changed


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
    """Write the spectra of one step, replacing the file in one go."""
    entries = list(entries)
    vectors = {
        name: np.concatenate([getattr(entry.spectrum, name) for entry in entries] or [np.empty(0)])
        for name in ("values", "lower", "upper")
    }
    listing = json.dumps({"version": VERSION, "entries": [_described(entry) for entry in entries]})
    write_atomically(path, save(vectors, metadata={"rankscope": listing}))


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
        with safe_open(path, framework="np") as file:
            listing = json.loads(file.metadata()["rankscope"])
            vectors = [file.get_tensor(name) for name in ("values", "lower", "upper")]
        if listing["version"] not in READABLE:
            return []
        return _entries(listing["entries"], vectors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise RankscopeError(f"not a readable spectra file ({error})", path=path) from error


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


def _entries(described: list[dict[str, Any]], vectors: list[np.ndarray]) -> list[Entry]:
    ends = np.cumsum([one["count"] for one in described])
    parts = zip(*(np.split(vector, ends[:-1]) for vector in vectors), strict=True)
    return [
        Entry(
            one["key"],
            one["place"],
            Spectrum(
                shape=(one["shape"][0], one["shape"][1]),
                dtype=one["dtype"],
                values=values,
                lower=lower,
                upper=upper,
                noise_floor=math.nan if one["noise_floor"] is None else one["noise_floor"],
                noise_source=one["noise_source"],
                route=one["route"],
                status=one["status"],
                significant_bits=one.get("significant_bits", 0),
                before=Norm(*one["before"]) if one.get("before") else None,
                is_scaled=one.get("is_scaled", True),
            ),
        )
        for one, (values, lower, upper) in zip(described, parts, strict=False)
    ]
