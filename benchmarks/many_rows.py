"""Write a results folder of many rows: those of a small one again, of other matrices and steps.

    python -m benchmarks.many_rows RESULTS OUT [--rows 1000000] [--steps 150]

Every matrix becomes a number of experts, and its steps are followed by as many others as asked. Its
numbers differ a little from copy to copy. Spectra are stored of the steps that figures draw.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.durable import GrowingFile
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    COLUMNS,
    METRICS_FILE,
    SPECTRA_FOLDER,
    TEXT,
    TRAINING_FILE,
    WHOLE,
)
from rankscope.results.parquet_tables import ParquetRows
from rankscope.results.record import FILES, read_record, write_with_record
from rankscope.results.results import open_results
from rankscope.results.row_checks import RANKS, SHARES
from rankscope.results.spectra_store import Entry, read_entries, store_path, write_entries
from rankscope.results.typed_columns import Columns, joined

Row = dict[str, Any]

SPREAD = 1e-3  # of the numbers of a copy around those of its original
# Among those that differ: one factor for all of a row, so that they fit each other.
SHARED = ("per", "per_resolved", "effective_rank", "rank_utilisation", "stable_rank")
OTHERS = ("condition_number", "condition_number_r", "condition_number_90", "tail_index")
DRAWN = "update"  # the component whose spectra are stored


def write_many_rows(results: Path, out: Path, *, rows: int, steps: int) -> int:
    """Write the folder; returns how many rows it has: at least ``rows``, unless there are fewer.

    Parameters
    ----------
    results
        A folder of a small analysis, as this version writes it.
    steps
        Least number of steps of a run.
    """
    opened = open_results(results)
    table = opened.metrics
    rounds = -(-steps // int(table.groupby("run")["step"].nunique().min()))
    copies = -(-rows // (rounds * len(table)))
    shutil.rmtree(out, ignore_errors=True)
    count = 0
    with GrowingFile(out / METRICS_FILE) as file:
        written = ParquetRows(file, COLUMNS, whole=WHOLE, text=TEXT)
        for part in _parts(opened.path, table, rounds=rounds, copies=copies, out=out):
            written.add(part)
            count += part.count
        written.close()
        record = read_record(results / ANALYSIS_RECORD)
        del record[FILES]
        log = results / TRAINING_FILE
        logs = {TRAINING_FILE: log.read_bytes()} if log.is_file() else {}
        write_with_record(out / ANALYSIS_RECORD, record, {METRICS_FILE: file, **logs})
    return count


def _parts(results: Path, table: Any, *, rounds: int, copies: int, out: Path) -> Iterator[Columns]:
    """The rows of each run and step in the order of a table."""
    rng = np.random.default_rng(2307)
    for run, own in table.groupby("run", sort=False):
        at_steps = [(int(step), _columns(rows)) for step, rows in own.groupby("step", sort=True)]
        span = at_steps[-1][0] + at_steps[-1][0] - at_steps[-2][0]
        shown = _drawn_steps(own, range(0, rounds * span, span))
        for shift in range(0, rounds * span, span):
            for step, rows in at_steps:
                yield joined([_copy(rows, k, shift, rng) for k in range(copies)])
                if step + shift in shown:
                    entries = read_entries(store_path(results / SPECTRA_FOLDER, run, step))
                    target = store_path(out / SPECTRA_FOLDER, run, step + shift)
                    write_entries(target, _entries(entries, copies, shift))


def _drawn_steps(rows: Any, shifts: range) -> set[int]:
    """An early, a middle and a late step of the component whose spectra are drawn."""
    own = sorted({int(step) for step in rows.loc[rows["component"] == DRAWN, "step"]})
    steps = [step + shift for shift in shifts for step in own]
    return {steps[0], steps[len(steps) // 2], steps[-1]} if steps else set()


def _columns(rows: Any) -> Columns:
    plain = rows.astype(object).where(rows.notna(), None)
    return Columns.of(plain.to_dict("records"), COLUMNS, whole=WHOLE, text=TEXT)


def _copy(rows: Columns, number: int, shift: int, rng: np.random.Generator) -> Columns:
    """The rows of other experts at a later step, with numbers a little different."""
    copy = replace(
        rows,
        numbers={kind: values.copy() for kind, values in rows.numbers.items()},
        known=rows.known.copy(),
        words=(*rows.words, *(_name(word, number) for word in rows.words)),
    )
    copy.texts("name").codes[:] += len(rows.words)  # of the words that were added
    expert = copy.numeric("expert")
    expert.values[:], expert.known[:] = number, True
    for column in ("step", "since"):
        copy.numeric(column).values[:] += shift
    for columns in (SHARED, OTHERS):
        factor = 1 + SPREAD * rng.standard_normal(rows.count)
        for column in columns:
            values = copy.numeric(column).values
            values[:] = _within(column, values * factor)
    return copy


def _within(column: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    assert {column} <= {*SHARES, *RANKS, *OTHERS}
    return np.clip(values, 0, 1) if column in SHARES else values


def _name(name: Any, number: int) -> str:
    return f"{name}.experts.{number}"


def _entries(entries: list[Entry], copies: int, shift: int) -> Iterator[Entry]:
    for entry in entries:
        if entry.place["component"] != DRAWN:
            continue
        for number in range(copies):
            since = entry.place["since"]
            place = {
                **entry.place,
                "expert": number,
                "name": _name(entry.place["name"], number),
                "since": int(since) + shift if since is not None else None,
            }
            yield replace(entry, key=f"{entry.key}-{number}-{shift}", place=place)


def main() -> None:
    """Write such a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=150)
    given = parser.parse_args()
    print(write_many_rows(given.results, given.out, rows=given.rows, steps=given.steps), "rows")


if __name__ == "__main__":
    main()
