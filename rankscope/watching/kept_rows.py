"""Rows of checkpoints that are gone: a run that keeps only its latest ones does not lose them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.analysis.analyzed import Analysis
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run, listed
from rankscope.components.selection import AT_MERGES, COMPONENTS
from rankscope.errors import RankscopeError
from rankscope.results.columns import COLUMNS, KEY, METRICS_FILE
from rankscope.results.measure import Row
from rankscope.results.step_rows import StepRows

Steps = dict[int, list[Row]]
SKIPPED = "skipped:"
BATCH = 4096  # rows, each of which takes some 5 kB
# The same files give the same values; a noise floor may depend on checkpoints that are gone.
MATRIX, VALUES = (*KEY, "since"), ("status", "spectral_norm", "nuclear_norm")


def with_kept_rows(analysis: Analysis, out: Path, there: Mapping[str, Sequence[int]]) -> Analysis:
    """The analysis with the rows that the table in ``out`` has of checkpoints that are gone.

    Later steps, whose changes may depend on a checkpoint that is gone, keep the rows that they have
    in the table too. A note names the checkpoints. Nothing is kept of a run that was started anew:
    whose table reaches beyond its last checkpoint, or whose remaining checkpoints have other
    singular values than in the table.

    Parameters
    ----------
    there
        The steps of each run's checkpoints, complete or not.
    """
    earlier = [row for row in read_rows(out) if not row["status"].startswith(SKIPPED)]
    rows: list[Row] = []
    notes: list[Skip] = []
    is_kept = False
    for run in analysis.runs:
        now, before = _steps(analysis.rows, run.name), _of_checkpoints(earlier, run.name)
        gone = before.keys() - {*run.steps}
        kept = {step for step in before if gone and step >= min(gone)}
        is_another = bool(gone) and _is_another(before, now, there[run.name])
        notes += _notes(run, gone - {*there[run.name]}, is_another=is_another)
        kept = set() if is_another else kept
        is_kept |= bool(kept)
        for step in sorted(now.keys() | kept):
            own = now.get(step, [])
            rows += _joined(before[step], own) if step in kept else own
    if not notes and not is_kept:
        return analysis
    # Without a key, `analyze` does not take this table for its own.
    return replace(
        analysis, parts=(StepRows.of(rows, {}),), notes=(*analysis.notes, *notes), key=None
    )


def read_rows(out: Path) -> list[Row]:
    """The rows of the table in a folder; none if there is none, or one of an older version.

    None either, if it cannot be read.
    """
    import pyarrow as pa

    try:
        return [row for batch in iter_row_batches(out) for row in batch]
    except (OSError, pa.ArrowException, RankscopeError):
        return []


def iter_row_batches(out: Path) -> Iterator[list[Row]]:
    """The rows of the table in a folder, some at a time; none of a table of an older version.

    Raises
    ------
    OSError, pyarrow.ArrowException, RankscopeError
        If there is no table, or it cannot be read.
    """
    import pyarrow.parquet

    from rankscope.results.parquet_tables import check_size

    check_size(out / METRICS_FILE)
    with pyarrow.parquet.ParquetFile(out / METRICS_FILE) as table:
        if set(COLUMNS) <= {*table.schema_arrow.names}:
            for batch in table.iter_batches(batch_size=BATCH):
                yield batch.to_pylist()


def by_step(rows: Iterable[Row]) -> dict[tuple[str, int], list[Row]]:
    """Rows by run and step, in the order of the table."""
    steps: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        steps.setdefault((row["run"], row["step"]), []).append(row)
    return steps


def _steps(rows: Iterable[Row], run: str) -> Steps:
    """The rows of one run, by step."""
    return {step: own for (name, step), own in by_step(rows).items() if name == run}


def values_of(rows: Iterable[Row]) -> frozenset[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The matrices of a step, each with the measures that show whether it is the same."""
    return frozenset(
        (tuple(row[name] for name in MATRIX), tuple(row[name] for name in VALUES)) for row in rows
    )


def _of_checkpoints(rows: Iterable[Row], run: str) -> Steps:
    """The rows of one run by step, without those of merges, which have files of their own."""
    return _steps((row for row in rows if row["component"] not in AT_MERGES), run)


def _joined(before: Iterable[Row], now: Iterable[Row]) -> list[Row]:
    """The rows of a step: of its checkpoint as they were, and of its merge, in the usual order."""
    merges = (row for row in now if row["component"] in AT_MERGES)
    return sorted([*before, *merges], key=lambda row: COMPONENTS.index(row["component"]))


def _is_another(before: Steps, now: Steps, there: Sequence[int]) -> bool:
    """Whether the table is not of the training whose checkpoints are there now."""
    if max(before) > max(there):
        return True
    for step in before.keys() & now.keys():
        known, found = (dict(values_of(some[step])) for some in (before, now))
        if any(known[matrix] != found[matrix] for matrix in known.keys() & found.keys()):
            return True
    return False


def _notes(run: Run, gone: Iterable[int], *, is_another: bool) -> list[Skip]:
    steps = tuple(sorted(gone))
    if not steps:
        return []
    what = "of another training, and left out" if is_another else "from an earlier look"
    message = f"the checkpoints of {listed(steps)} are gone: their rows are {what}"
    return [Skip(str(run.path), "", "gone", message)]
