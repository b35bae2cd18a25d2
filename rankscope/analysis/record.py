"""What the last analysis into a results folder recorded of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankscope.analysis.plan import Plans, Selection
from rankscope.analysis.rows import SPECTRA_FOLDER
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run
from rankscope.results.record import is_intact, read_record
from rankscope.spectra.store import store_path

RECORD = "analysis.json"


def unchanged(
    out: Path, runs: Sequence[Run], selection: Selection, said: Sequence[Skip] = ()
) -> dict[str, Any] | None:
    """Record of the last analysis, if it asked the same of files that are still the same.

    Reads headers, and the tables for their digests: a table that was emptied, replaced by that of
    another call or damaged is written again, as is a file of the store that was removed. ``said``
    are the skips and notes of the survey that found the runs.
    """
    record = read_record(out / RECORD)
    if not record.get("key") or not is_intact(out / RECORD):
        return None
    plans = Plans(runs, selection, said)
    needed = [store_path(out / SPECTRA_FOLDER, plan.run, plan.step) for plan in plans if plan.tasks]
    has_all = all(path.is_file() for path in needed)
    return record if has_all and record["key"] == plans.key else None
