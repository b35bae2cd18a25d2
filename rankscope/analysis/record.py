"""What the last analysis into a results folder recorded of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankscope.analysis.plan import Plans, Selection
from rankscope.analysis.rows import METRICS_FILE
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run

RECORD = "analysis.json"


def unchanged(
    out: Path, runs: Sequence[Run], selection: Selection, said: Sequence[Skip] = ()
) -> dict[str, Any] | None:
    """Record of the last analysis, if it asked the same of files that are still the same.

    Reads headers only: neither the store nor the table. ``said`` are the skips and notes of the
    survey that found the runs.
    """
    record = read_record(out)
    if not record.get("key") or not (out / METRICS_FILE).is_file():
        return None
    plans = Plans(runs, selection, said)
    for _ in plans:
        pass
    return record if record["key"] == plans.key else None


def read_record(out: Path) -> dict[str, Any]:
    """Content of ``analysis.json``; empty where there is none or it is damaged."""
    try:
        record = json.loads((out / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
