"""Rows of the table: one matrix of one run at one step, as a plain dictionary.

Apart from `rankscope.analysis.table`, so that an analysis can do without pandas.
"""

from __future__ import annotations

from typing import Any

from rankscope.analysis.measure import FULL_RANK, METRICS, measure
from rankscope.spectra.store import Entry

METRICS_FILE, TRAINING_FILE, SPECTRA_FOLDER = "metrics.parquet", "training.csv", "spectra"
KEY = ("run", "step", "layer", "role", "component", "head", "expert", "name")
WINDOW = ("since", "restarts", "window")
COLUMNS = (*KEY, *WINDOW, "rows", "cols", "dtype", "status", *METRICS)
WHOLE = (
    *("step", "layer", "head", "expert", "since", "restarts"),
    *("rows", "cols", "significant_bits", "numerical_rank", "max_rank"),
)
TEXT = (
    "run",
    "role",
    "component",
    "name",
    "window",
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
    place = dict.fromkeys(WINDOW) | dict(entry.place)
    return {
        "run": run,
        "step": step,
        **place,
        **shape,
        **what,
        **measure(spectrum, whole=place["component"] in FULL_RANK),
    }
