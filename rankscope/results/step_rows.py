"""The rows of one run and step, kept beside its spectra: the table is put together from them.

A file (`rankscope.results.vectors`) holds them twice, as JSON and as lines of CSV, so that a call
that finds a step unchanged neither measures nor formats its matrices again. It is no more than a
shortcut: one that is damaged or missing is made again from the store of spectra.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.errors import DAMAGE, RankscopeError
from rankscope.results.columns import COLUMNS
from rankscope.results.csv_tables import as_csv
from rankscope.results.measure import Row
from rankscope.results.vectors import OtherVersionError, read_vectors, write_vectors

VERSION = "1"


@dataclass(frozen=True)
class StepRows:
    """Rows of the table, in its order.

    Attributes
    ----------
    about
        What else is to be known of the step, as JSON can hold it.
    rows
        Each row by column.
    csv
        The same as lines of the table.
    """

    about: Mapping[str, Any]
    rows: list[Row] = field(repr=False)
    csv: bytes = field(repr=False)

    @classmethod
    def of(cls, rows: list[Row], about: Mapping[str, Any]) -> StepRows:
        """Rows as they were just made."""
        return cls(about, rows, as_csv(rows, COLUMNS, heading=False))


def write_step_rows(path: Path, made: StepRows) -> None:
    """Write the rows of a step, replacing the file in one go."""
    cells = json.dumps([[row[name] for name in COLUMNS] for row in made.rows], default=_plain)
    vectors = {"cells": _as_vector(cells.encode()), "csv": _as_vector(made.csv)}
    write_vectors(path, vectors, {**made.about, "columns": COLUMNS}, version=VERSION)


def read_step_rows(path: Path) -> StepRows | None:
    """Read the rows of a step; None if they are not there as this version writes them."""
    try:
        vectors, about = read_vectors(path, version=VERSION)
        if about.pop("columns") != list(COLUMNS):
            return None
        rows = [
            dict(zip(COLUMNS, cells, strict=True))
            for cells in json.loads(vectors["cells"].tobytes())
        ]
        return StepRows(about, rows, vectors["csv"].tobytes())
    except (OtherVersionError, RankscopeError, *DAMAGE):
        return None


def _as_vector(content: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(content, np.uint8)


def _plain(number: Any) -> Any:
    """A number of numpy as JSON can hold it."""
    return number.item()
