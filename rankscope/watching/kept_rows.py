"""Rows of checkpoints that are gone: a run that keeps only its latest ones does not lose them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.analysis.analyzed import Analysis
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run, listed
from rankscope.results.columns import COLUMNS, KEY, METRICS_FILE
from rankscope.results.measure import Row

# The same files give the same values; a noise floor may depend on checkpoints that are gone.
SKIPPED = "skipped:"
SAME = (*KEY, "since", "status", "spectral_norm", "nuclear_norm")


def with_kept_rows(analysis: Analysis, out: Path) -> Analysis:
    """The analysis with the rows that the table in ``out`` has of steps that are gone.

    A step whose updates begin at a checkpoint that is gone keeps its rows too. A note names both.
    Nothing is kept of a run that was started anew: whose table reaches beyond its last checkpoint,
    or whose remaining checkpoints have other singular values than in the table.
    """
    earlier = [row for row in read_rows(out) if not row["status"].startswith(SKIPPED)]
    rows: list[Row] = []
    notes: list[Skip] = []
    for run in analysis.runs:
        now, before = _steps(analysis.rows, run.name), _steps(earlier, run.name)
        gone = before.keys() - now.keys() - {*run.steps}
        kept = {step for step in before if step in gone or _begins_in(before[step], gone)}
        if gone and _is_another(before, now, kept):
            notes.append(_note(run, gone, "they are of another training and are left out"))
            kept = set()
        elif gone:
            notes.append(_note(run, gone, "their rows are from an earlier look"))
        for step in sorted(now.keys() | kept):
            rows += before[step] if step in kept else now[step]
    if not notes:
        return analysis
    # Without a key, `analyze` does not take this table for its own.
    return replace(analysis, rows=tuple(rows), notes=(*analysis.notes, *notes), key=None)


def read_rows(out: Path) -> list[Row]:
    """The rows of the table in a folder; none if there is none, or one of an older version."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pa.parquet.read_table(out / METRICS_FILE)
    except (OSError, pa.ArrowInvalid):
        return []
    rows: list[Row] = table.to_pylist() if set(COLUMNS) <= {*table.column_names} else []
    return rows


def by_step(rows: Iterable[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows by run and step, in the order of the table."""
    steps: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        steps.setdefault((row["run"], row["step"]), []).append(row)
    return steps


def _steps(rows: Iterable[Row], run: str) -> dict[int, list[Row]]:
    """The rows of one run, by step."""
    return {step: own for (name, step), own in by_step(rows).items() if name == run}


def _begins_in(rows: Iterable[Row], gone: set[int]) -> bool:
    return any(row["since"] in gone for row in rows)


def _is_another(
    before: Mapping[int, Sequence[Row]], now: Mapping[int, Sequence[Row]], kept: set[int]
) -> bool:
    """Whether the table is not of the training whose checkpoints are there now."""
    if max(before) > max(now):
        return True
    shared = before.keys() & now.keys() - kept
    return any(values_of(before[step]) != values_of(now[step]) for step in shared)


def values_of(rows: Iterable[Row]) -> frozenset[tuple[Any, ...]]:
    """What identifies the rows of a step: the matrices and their singular values."""
    return frozenset(tuple(row[name] for name in SAME) for row in rows)


def _note(run: Run, gone: Iterable[int], what: str) -> Skip:
    message = f"the checkpoints of {listed(tuple(sorted(gone)))} are gone: {what}"
    return Skip(str(run.path), "", "gone", message)
