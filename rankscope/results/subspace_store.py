"""The store of subspace comparisons: one file per run and matrix, with the results of each step.

Files are per matrix, not per step, since the comparisons of one matrix are computed together and
written when done. The file holds the cosines of the principal angles as vectors
(`rankscope.results.vectors`) and all other numbers in its description.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.durable import safe_name
from rankscope.errors import RankscopeError
from rankscope.results.vectors import OtherVersionError, read_vectors, write_vectors
from rankscope.spectra.bounds import Values
from rankscope.spectra.chance import SIDES
from rankscope.spectra.subspace_measures import Measure

VERSION = "1"  # of arithmetic and file: numbers of other versions are never reused


@dataclass(frozen=True)
class Comparison:
    """One matrix at one step, compared with an earlier step.

    Attributes
    ----------
    key
        Digest of everything that it was computed from.
    step, against
        The two steps.
    measures
        The numbers.
    cosines
        Cosines of the principal angles between the largest subspaces, by side.
    """

    key: str
    step: int
    against: int
    measures: tuple[Measure, ...]
    cosines: Mapping[str, Values]


def comparisons_path(folder: Path, run: str, kind: str, name: str) -> Path:
    """File of a matrix of a run; no name can point outside the folder."""
    return folder / safe_name(run) / f"{safe_name(f'{kind} {name}')}.safetensors"


def write_comparisons(path: Path, found: Iterable[Comparison]) -> None:
    """Write all comparisons of one matrix, replacing the file in one go."""
    ordered = sorted(found, key=lambda one: (one.step, -one.against, one.key))
    vectors: dict[str, Values] = {
        side: np.concatenate([one.cosines[side] for one in ordered] or [np.empty(0)])
        for side in SIDES
    }
    write_vectors(path, vectors, {"comparisons": list(map(_described, ordered))}, version=VERSION)


def read_comparisons(path: Path) -> list[Comparison]:
    """Read the comparisons of one matrix; none if the file is absent or of another version.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        vectors, listing = read_vectors(path, version=VERSION)
        return _comparisons(listing["comparisons"], vectors)
    except OtherVersionError:
        return []
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error


def _described(one: Comparison) -> dict[str, Any]:
    return {
        "key": one.key,
        "step": one.step,
        "against": one.against,
        "cosines": {side: len(one.cosines[side]) for side in SIDES},
        "measures": [list(asdict(measure).values()) for measure in one.measures],
    }


def _comparisons(
    described: list[dict[str, Any]], vectors: Mapping[str, Values]
) -> list[Comparison]:
    places = {
        side: pairwise(accumulate((one["cosines"][side] for one in described), initial=0))
        for side in SIDES
    }
    found = []
    for one in described:
        ends = {side: next(places[side]) for side in SIDES}
        cosines: dict[str, Values] = {
            side: vectors[side][start:end] for side, (start, end) in ends.items()
        }
        measures = tuple(Measure(*values) for values in one["measures"])
        found.append(Comparison(one["key"], one["step"], one["against"], measures, cosines))
    return found
