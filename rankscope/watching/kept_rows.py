"""Rows of checkpoints that are gone: a run that keeps only its latest ones does not lose them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from rankscope.analysis.analyzed import Analysis
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run, listed
from rankscope.components.selection import AT_MERGES, COMPONENTS
from rankscope.errors import RankscopeError
from rankscope.results.columns import COLUMNS, KEY, METRICS_FILE
from rankscope.results.measure import Row
from rankscope.results.step_rows import KeptRows, Spool, StepRows, iter_rows

Steps = dict[int, KeptRows]
BATCH = 2**12  # rows of the table that are in memory at a time
SKIPPED = "skipped:"
# The same files give the same values; a noise floor may depend on checkpoints that are gone.
MATRIX, VALUES = (*KEY, "since"), ("status", "spectral_norm", "nuclear_norm")
IDENTIFYING = (*MATRIX, *VALUES)


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
    spool = Spool(out)
    try:
        before = _of_gone(analysis.runs, out, spool)
    except RankscopeError:  # the table is damaged
        before = {}
    if not before:
        return analysis
    measured = parts_by_step(analysis.parts)
    parts: list[KeptRows] = []
    notes: list[Skip] = []
    is_kept = False
    for run in analysis.runs:
        now = {step: part for (name, step), part in measured.items() if name == run.name}
        earlier = before.get(run.name, {})
        gone = earlier.keys() - {*run.steps}
        is_another = bool(gone) and _is_another(earlier, now, there[run.name])
        notes += _notes(run, gone - {*there[run.name]}, is_another=is_another)
        kept = {step for step in earlier if gone and step >= min(gone)} if not is_another else set()
        is_kept |= bool(kept)
        for step in sorted(now.keys() | kept):
            own = iter_rows([now[step]] if step in now else ())
            parts.append(
                spool.add(StepRows.of(_joined(iter_rows([earlier[step]]), own), {}))
                if step in kept
                else now[step]
            )
    if not notes and not is_kept:
        return analysis
    # Without a key, `analyze` does not take this table for its own.
    return replace(analysis, parts=tuple(parts), notes=(*analysis.notes, *notes), key=None)


def _of_gone(runs: Iterable[Run], out: Path, spool: Spool) -> dict[str, Steps]:
    """What the table has of all checkpoints, by run; nothing if all of them are there."""
    held: dict[str, set[int]] = {}
    for (name, step), rows in iter_table(out, ("run", "step", "component", "status")):
        if _of_checkpoint(rows):
            held.setdefault(name, set()).add(step)
    if all(held.get(run.name, set()) <= {*run.steps} for run in runs):
        return {}
    found: dict[str, Steps] = {}
    for (name, step), rows in iter_table(out):
        if own := _of_checkpoint(rows):
            found.setdefault(name, {})[step] = spool.add(StepRows.of(own, {}))
    return found


def iter_table(
    out: Path, columns: Sequence[str] = COLUMNS
) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    """Go through the table in a folder: each run and step with its rows; few are in memory.

    Nothing if there is none, or one of an older version.

    Raises
    ------
    RankscopeError
        If it cannot be read, perhaps only when some of its rows were given.
    """
    import pyarrow as pa
    import pyarrow.parquet

    from rankscope.results.parquet_tables import check_size

    path = out / METRICS_FILE
    if not path.exists():
        return
    try:
        check_size(path)
        with pa.parquet.ParquetFile(path) as file:
            if not set(COLUMNS) <= {*file.schema_arrow.names}:
                return
            batches = file.iter_batches(BATCH, columns=list(columns))
            yield from _steps_of(row for batch in batches for row in batch.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise RankscopeError(f"cannot be read: {error}", path=path) from error


def _steps_of(rows: Iterable[Row]) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    for key, own in groupby(rows, lambda row: (row["run"], row["step"])):
        yield key, list(own)


def parts_by_step(parts: Iterable[KeptRows]) -> dict[tuple[str, int], KeptRows]:
    """Parts of a table by run and step, in order; those without rows are left out."""
    found = {}
    for part in parts:
        first = next(part.load().columns.part(0, 1).rows(("run", "step")), None)
        if first is not None:
            found[first["run"], first["step"]] = part
    return found


def digest_of_rows(rows: Iterable[Row]) -> bytes:
    """Digest of the values by which the rows of a step are known again."""
    text = repr(sorted(map(repr, values_of(rows))))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def values_of(rows: Iterable[Row]) -> frozenset[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The matrices of a step, each with the measures that show whether it is the same."""
    return frozenset(
        (tuple(row[name] for name in MATRIX), tuple(row[name] for name in VALUES)) for row in rows
    )


def _of_checkpoint(rows: Iterable[Row]) -> list[Row]:
    """The measured rows of a step without those of merges, which have files of their own."""
    return [
        row
        for row in rows
        if row["component"] not in AT_MERGES and not row["status"].startswith(SKIPPED)
    ]


def _joined(before: Iterable[Row], now: Iterable[Row]) -> list[Row]:
    """The rows of a step: of its checkpoint as they were, and of its merge, in the usual order."""
    merges = (row for row in now if row["component"] in AT_MERGES)
    return sorted([*before, *merges], key=lambda row: COMPONENTS.index(row["component"]))


def _is_another(before: Steps, now: Steps, there: Sequence[int]) -> bool:
    """Whether the table is not of the training whose checkpoints are there now."""
    if max(before) > max(there):
        return True
    for step in before.keys() & now.keys():
        known, found = (dict(values_of(iter_rows([some[step]]))) for some in (before, now))
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
