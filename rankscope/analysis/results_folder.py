"""The results folder: the table, what was skipped, the training logs, and the record."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankscope.addresses import shown
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.summary import Gathered
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.training_log import planned_steps, read_training_log
from rankscope.durable import GrowingFile
from rankscope.errors import RankscopeWarning
from rankscope.pipeline.seen_files import SEEN
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    ANALYSIS_SKIPS,
    COLUMNS,
    METRICS_CSV,
    METRICS_FILE,
    SUBSPACE_COLUMNS,
    SUBSPACE_TEXT,
    SUBSPACE_WHOLE,
    SUBSPACES_CSV,
    SUBSPACES_FILE,
    TEXT,
    TRAINING_FILE,
    WHOLE,
)
from rankscope.results.csv_tables import as_csv
from rankscope.results.parquet_tables import ParquetRows, as_parquet
from rankscope.results.record import json_lines, provenance, write_with_record
from rankscope.spectra.symmetric import way

PACKAGES = ("rankscope", "numpy", "pandas", "pyarrow", "safetensors")


# Keys of logs that always become columns, and cells up to which all do.
FEW_KEYS, MANY_CELLS = 64, 2**25


def write_results(
    out: Path, analysis: Analysis, *, runs: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Write everything but the spectra, each file in one go; unchanged files stay untouched.

    Parameters
    ----------
    runs
        What the record says about the runs, if that is not in their folders.

    Raises
    ------
    OSError
        If a file cannot be written; the files before it are complete.
    """
    logs = training_records(analysis.runs)
    others = {
        ANALYSIS_SKIPS: json_lines(map(vars, analysis.skips)),
        TRAINING_FILE: as_csv(logs, _columns_of(logs)) if logs else None,
        SUBSPACES_FILE: None,
        SUBSPACES_CSV: None,
    }
    if analysis.selection.subspaces is not None:
        others[SUBSPACES_CSV] = as_csv(analysis.subspaces, SUBSPACE_COLUMNS)
        others[SUBSPACES_FILE] = as_parquet(
            analysis.subspaces, SUBSPACE_COLUMNS, whole=SUBSPACE_WHOLE, text=SUBSPACE_TEXT
        )
    with GrowingFile(out / METRICS_FILE) as parquet, GrowingFile(out / METRICS_CSV) as lines:
        record = described(analysis, _written(analysis, parquet, lines))
        record |= {} if runs is None else {"runs": list(runs)}
        files = {METRICS_FILE: parquet, METRICS_CSV: lines} | others
        write_with_record(out / ANALYSIS_RECORD, record, files)


def _written(analysis: Analysis, parquet: GrowingFile, lines: GrowingFile) -> Gathered:
    """Write the table part by part; returns what the summary needs from all rows."""
    gathered = _nothing_of(analysis)
    table = ParquetRows(parquet, COLUMNS, whole=WHOLE, text=TEXT)
    lines.write(as_csv((), COLUMNS))
    for part in analysis.parts:
        rows = part.load()
        columns = rows.columns
        table.add(columns)
        lines.write(rows.csv)
        gathered.add(columns)
    table.close()
    return gathered


def _nothing_of(analysis: Analysis) -> Gathered:
    return Gathered(analysis.breaks, {run.name: run.unit for run in analysis.runs})


def training_records(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Training logs of all runs, one record after another."""
    return [
        {"run": run.name} | record | {"run": run.name}  # a log may have a "run" of its own
        for run in runs
        for record in read_training_log(run)
    ]


def _columns_of(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all records; only the first, with a warning, if there are absurdly many.

    A table has a cell for every key in every record, even if the record lacks it: a log of a few
    megabytes in which each line has a different key would fill a disk.
    """
    keys = list(dict.fromkeys(key for record in logs for key in record))
    most = max(FEW_KEYS, MANY_CELLS // max(len(logs), 1))
    if len(keys) > most:
        message = (
            f"the logs have {len(keys)} different keys in {len(logs)} lines: {TRAINING_FILE} has "
            f"the first {most} of them"
        )
        warnings.warn(RankscopeWarning(message), stacklevel=2)
    return keys[:most]


def described(analysis: Analysis, gathered: Gathered | None = None) -> dict[str, Any]:
    """What was analysed, with which settings and versions, and a summary of the results.

    Parameters
    ----------
    gathered
        What was gathered from all rows; None to go through them here.
    """
    if gathered is None:
        gathered = _nothing_of(analysis)
        for part in analysis.parts:
            gathered.add(part.load().columns)
    return {
        "schema_version": 2,
        **provenance(PACKAGES),
        "eigenvalues": way(),
        "key": analysis.key,
        "subspaces_key": analysis.subspaces_key,
        SEEN: None if analysis.seen is None else dict(analysis.seen),
        "named": analysis.selection.named,
        "options": _described_options(analysis),
        "runs": [_described_run(run) for run in analysis.runs],
        "rows": sum(part.count for part in analysis.parts),
        "status": dict(gathered.statuses),
        "skipped": [asdict(skip) for skip in analysis.skips],
        "notes": [asdict(note) for note in analysis.notes],
        "breaks": dict(analysis.breaks),
        "summary": asdict(gathered.summary()),
    }


def _described_options(analysis: Analysis) -> dict[str, Any]:
    asked = analysis.selection
    read = next((run.checkpoints[0].options for run in analysis.runs if run.checkpoints), DEFAULT)
    return {
        "components": asked.components,
        "roles": asked.roles,
        "layers": None if asked.layers is None else str(asked.layers),
        "steps": None if asked.steps is None else str(asked.steps),
        "windows": asked.windows,
        "subspaces": asked.subspaces,
        "against": None if asked.subspaces is None else asked.against,
        "since": None if asked.since is None else shown(asked.since.path),
        "layout": read.layout,
        "family": None if read.family is None else read.family.name,
        "trust_pickle": read.trust_pickle,
        "base": None if read.base is None else shown(read.base),
    }


def _described_run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": shown(run.path),
        "unit": run.unit,
        "planned": planned_steps(run),
        "checkpoints": [
            {
                "step": checkpoint.step,
                "step_source": checkpoint.step_source,
                "layout": checkpoint.layout,
                "path": shown(checkpoint.path),
            }
            for checkpoint in run
        ],
        "merges": [shown(path) for path in run.merge_files],
    }
