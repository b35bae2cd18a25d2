"""The store of subspace comparisons: one file per run and matrix, with what was found at each step.

Each matrix has a file, rather than each step, since all comparisons of one matrix are computed
together and written when it is done. All numbers are in the file's description
(`rankscope.results.vectors`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rankscope.durable import safe_name
from rankscope.results.run_folders import run_folder
from rankscope.results.vectors import read_listed, write_vectors
from rankscope.spectra.subspace_measures import Measure

VERSION = "4"  # of the arithmetic and of the file; numbers of another version are never reused


@dataclass(frozen=True)
class Comparison:
    """The comparison of a matrix at one step with the same matrix at another.

    Attributes
    ----------
    key
        Digest of everything that it was computed from.
    step, against
        The two steps.
    measures
        The numbers.
    """

    key: str
    step: int
    against: int
    measures: tuple[Measure, ...]


def comparisons_path(folder: Path, run: str, kind: str, name: str) -> Path:
    """File of a matrix of a run; no name can lead elsewhere."""
    return run_folder(folder, run) / f"{safe_name(f'{kind} {name}')}.safetensors"


def write_comparisons(path: Path, found: Iterable[Comparison]) -> None:
    """Write all comparisons of one matrix, replacing the file in one go."""
    ordered = sorted(found, key=lambda one: (one.step, -one.against, one.key))
    write_vectors(path, {}, {"comparisons": list(map(_described, ordered))}, version=VERSION)


def read_comparisons(path: Path) -> list[Comparison]:
    """Read the comparisons of one matrix; none if the file is absent or of another version.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    return read_listed(path, _comparisons, version=VERSION)


def _described(one: Comparison) -> dict[str, Any]:
    measures = [list(asdict(measure).values()) for measure in one.measures]
    return {"key": one.key, "step": one.step, "against": one.against, "measures": measures}


def _comparisons(about: Mapping[str, Any], vectors: Mapping[str, Any]) -> list[Comparison]:
    return [
        Comparison(**{**one, "measures": tuple(Measure(*values) for values in one["measures"])})
        for one in about["comparisons"]
    ]
