"""Rows of a monitored run: what was put in comes out, and memory does not grow with the steps."""

import tracemalloc
from pathlib import Path

import pytest

from rankscope.monitoring.run_rows import RunRows, rows_of_others
from rankscope.results.columns import COLUMNS, METRICS_FILE, TEXT, WHOLE
from rankscope.results.measure import Row
from rankscope.results.parquet_tables import as_parquet
from rankscope.results.step_rows import Spool, iter_rows
from rankscope.watching import kept_rows


def rows_at(step: int, *, run: str = "a", layers: int = 40) -> list[Row]:
    made = {name: 0.1 + step for name in COLUMNS if name not in (*WHOLE, *TEXT)}
    made |= {name: f"text of {name} at {step}" for name in TEXT} | dict.fromkeys(WHOLE, step)
    own = {"run": run, "component": "weight", "role": "q", "window": "step", "head": None}
    return [{**made, **own, "layer": layer} for layer in range(layers)]


def test_rows_come_out_as_they_were_put_in_and_by_step(tmp_path: Path) -> None:
    rows = RunRows(Spool(tmp_path))
    for step in (30, 10):
        rows.take(step).extend(reversed(rows_at(step)))
    assert [*rows] == [10, 30] and rows[10] == rows_at(10)[::-1]  # in hand
    assert [*iter_rows(rows.parts())] == rows_at(10) + rows_at(30)  # in the order of the table
    rows.take(10).append(rows_at(10, layers=41)[-1])
    assert len(rows[10]) == 41 and [part.count for part in rows.parts()] == [41, 40]
    changed = [row | {"window": "cycle"} for row in rows[30]]
    rows[30] = changed
    rows.put_away()
    assert rows[30] == changed
    rows.drop(10)
    assert 10 not in rows and 30 in rows and [*iter_rows(rows.parts())] == changed


def test_memory_does_not_grow_with_the_steps(tmp_path: Path) -> None:
    rows = RunRows(Spool(tmp_path))
    tracemalloc.start()
    try:
        rows.take(0).extend(rows_at(0))
        one_step = tracemalloc.get_traced_memory()[0]
        for step in range(1, 20):
            rows.put_away()
            rows.take(step).extend(rows_at(step))
        assert tracemalloc.get_traced_memory()[0] < 3 * one_step
    finally:
        tracemalloc.stop()


def test_rows_of_other_runs_are_taken_a_step_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_rows, "BATCH", 25)
    mine, others = rows_at(1, run="mine"), rows_at(2, run="b") + rows_at(3, run="c")
    table = as_parquet([*others[:40], *mine, *others[40:]], COLUMNS, whole=WHOLE, text=TEXT)
    (tmp_path / METRICS_FILE).write_bytes(table)
    parts = rows_of_others(tmp_path, "mine", Spool(tmp_path))
    assert [*iter_rows(parts)] == others and [part.count for part in parts] == [40, 40]
    (tmp_path / METRICS_FILE).write_bytes(table[:-50])
    assert rows_of_others(tmp_path, "mine", Spool(tmp_path)) == ()
    assert rows_of_others(tmp_path / "none", "mine", Spool(tmp_path)) == ()
