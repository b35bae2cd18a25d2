"""The results folder: the table, what was skipped, the training logs, and what all came from."""

from __future__ import annotations

import io
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.analysis.plan import Selection
from rankscope.analysis.table import METRICS_FILE, TRAINING_FILE
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.training_log import read_training_log
from rankscope.errors import RankscopeError
from rankscope.spectra.store import write_atomically

PACKAGES = ("rankscope", "numpy", "pandas", "pyarrow", "safetensors")


def check_writable(out: Path, runs: Sequence[Run]) -> None:
    """See that results can go there, before the work and not after it.

    Raises
    ------
    RankscopeError
        If ``out`` is a checkpoint or run that is to be analysed.
    OSError
        If it cannot be written.
    """
    inputs = {path.resolve() for run in runs for path in (run.path, *(c.path for c in run))}
    if out.resolve() in inputs:
        raise RankscopeError("is what is to be analysed: give another folder for --out", path=out)
    write_atomically(out / ".writable", b"")
    (out / ".writable").unlink()


def write_results(
    out: Path,
    runs: Sequence[Run],
    table: pd.DataFrame,
    skips: Sequence[Skip],
    selection: Selection,
) -> None:
    """Write everything but the spectra, each file in one go.

    Raises
    ------
    OSError
        If a file cannot be written; the files before it are complete.
    """
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False)
    logs = training_table(runs)
    files = {
        METRICS_FILE: parquet.getvalue(),
        "metrics.csv": table.to_csv(index=False).encode(),
        TRAINING_FILE: logs.to_csv(index=False).encode(),
        "skipped.jsonl": "".join(json.dumps(asdict(skip)) + "\n" for skip in skips).encode(),
        "analysis.json": json.dumps(described(runs, table, skips, selection), indent=2).encode(),
    }
    if logs.empty:
        del files[TRAINING_FILE]
    for name, content in files.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != content:  # so that make sees what is new
            write_atomically(path, content)


def training_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Training logs of all runs, one row a record; empty if no run has one."""
    records = [{"run": run.name, **record} for run in runs for record in read_training_log(run)]
    return pd.DataFrame(records)


def described(
    runs: Sequence[Run], table: pd.DataFrame, skips: Sequence[Skip], selection: Selection
) -> dict[str, Any]:
    """What was analysed, with what, and how it went, for ``analysis.json``."""
    options = asdict(selection) | {
        "layers": None if selection.layers is None else sorted(selection.layers)
    }
    return {
        "schema_version": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "options": options,
        "runs": [_described_run(run) for run in runs],
        "rows": len(table),
        "status": {str(k): int(v) for k, v in table["status"].value_counts().items()},
        "skipped": [asdict(skip) for skip in skips],
        "versions": {"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
    }


def _described_run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "checkpoints": [
            {
                "step": checkpoint.step,
                "step_source": checkpoint.step_source,
                "layout": checkpoint.layout,
                "path": str(checkpoint.path),
            }
            for checkpoint in run
        ],
        "merges": [str(path) for path in run.merge_files],
    }
