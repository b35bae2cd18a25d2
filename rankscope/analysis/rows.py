"""Rows of the table: one matrix of one run at one step, as a plain dictionary.

Apart from `rankscope.analysis.table`, so that an analysis can do without pandas.
"""

from __future__ import annotations

from typing import Any

from rankscope.analysis.measure import METRICS, measure
from rankscope.spectra.store import Entry

METRICS_FILE, TRAINING_FILE, SPECTRA_FOLDER = "metrics.parquet", "training.csv", "spectra"
KEY = ("run", "step", "layer", "role", "component", "head", "expert", "name")
COLUMNS = (*KEY, "rows", "cols", "dtype", "status", *METRICS)
WHOLE = ("step", "layer", "head", "expert", "rows", "cols", "numerical_rank", "max_rank")
TEXT = (
    "run",
    "role",
    "component",
    "name",
    "dtype",
    "status",
    "noise_source",
    "condition_number_status",
    "route",
)
Row = dict[str, Any]


def row_of(run: str, step: int, entry: Entry) -> Row:
    """One row of the table."""
    spectrum = entry.spectrum
    shape = {"rows": spectrum.shape[0], "cols": spectrum.shape[1]}
    what = {"dtype": spectrum.dtype, "status": spectrum.status}
    return {"run": run, "step": step, **entry.place, **shape, **what, **measure(spectrum)}
