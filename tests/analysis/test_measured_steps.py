"""What is gathered of steps as arrays is what going through the rows one by one gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rankscope.analysis.measured_steps import Matrices, iter_measured
from rankscope.analysis.moves import Moves
from rankscope.analysis.zeros import Zeros
from rankscope.results.columns import COLUMNS, TEXT, WHOLE
from rankscope.results.typed_columns import Columns
from tests.analysis.summarised import summarise

Row = dict[str, Any]
WINDOWS = ("", "cycle", "within")


def random_rows(rng: np.random.Generator, *, are_alike: bool) -> list[Row]:
    """Rows in the order of the table; of the same matrices at every step, or of any."""
    rows = []
    for run in ("a", "b"):
        for step in (0, 10, 20, 30):
            for component in ("weight", "update", "merged_total"):
                for layer in range(4):
                    if are_alike or rng.random() < 0.7:
                        window = WINDOWS[layer % 2] if are_alike else str(rng.choice(WINDOWS))
                        row = random_row(rng, run, step, component, layer)
                        change = {"since": step - 10, "window": window or None}
                        rows.append(row | (change if component == "update" else {}))
    return rows


def random_row(rng: np.random.Generator, run: str, step: int, component: str, layer: int) -> Row:
    row: Row = {"run": run, "step": step, "component": component, "layer": layer, "role": "q"}
    row |= {"name": f"layers.{layer}", "dtype": "bfloat16", "rows": 8, "cols": 4, "status": "zero"}
    if rng.random() < 0.8:
        per = float(rng.uniform(0.2, 0.9))
        resolved = per * float(rng.choice([1.0, 0.5]))
        row |= {"status": "ok", "per": per, "per_resolved": resolved, "effective_rank": 4 * per}
        row |= {"numerical_rank": 4, "max_rank": 4, "noise_source": "storage"}
        row |= {"per_error": None if rng.random() < 0.5 else 1e-6}
    return row


def columns_of(rows: list[Row]) -> Columns:
    return Columns.of(rows, COLUMNS, whole=WHOLE, text=TEXT)


def is_noisy(row: Row) -> bool:
    return bool(row["per_resolved"] < 0.99 * row["per"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("are_alike", [True, False])
def test_series_of_matrices_are_those_of_the_rows(seed: int, *, are_alike: bool) -> None:
    rows = random_rows(np.random.default_rng(seed), are_alike=are_alike)
    naive: dict[tuple[str, str, str], dict[int, list[tuple[int, float, float]]]] = {}
    for row in rows:
        window = row.get("window") or ""
        kept = row["component"] != "merged_total" and window != "within"
        if kept and "per" in row and not is_noisy(row):
            family = naive.setdefault((row["component"], row["run"], window), {})
            value = row["step"], row["per"], row["per_error"] or 0.0
            family.setdefault(row["layer"], []).append(value)
    moves = Moves()
    for found in iter_measured(columns_of(rows)):
        moves.add(found)
    assert list(moves.series) == list(naive)  # in the order in which they come, too
    for key, family in naive.items():
        series = moves.series[key]
        assert [one.place["layer"] for one in series] == list(family)
        for one, values in zip(series, family.values(), strict=True):
            steps, per, errors = zip(*values, strict=True)
            assert (one.steps, one.per) == ([*steps], [*per])
            assert one.errors == (errors[0], errors[-1])


@pytest.mark.parametrize("are_alike", [True, False])
def test_findings_count_the_rows_that_they_are_about(
    rng: np.random.Generator, *, are_alike: bool
) -> None:
    rows = random_rows(rng, are_alike=are_alike)
    findings = summarise(rows).findings
    for run in ("a", "b"):
        own = [row for row in rows if row["run"] == run]
        noisy = [row for row in own if "per" in row and is_noisy(row)]
        for component, words in (("weight", "weight"), ("merged_total", "merged total")):
            count = sum(row["component"] == component for row in noisy)
            what = f"{run}: PER of {count} {words} matri"
            assert any(line.startswith(what) for line in findings) == bool(count)
            zero = [r["step"] for r in own if (r["component"], r["status"]) == (component, "zero")]
            at = f"{run} {words} ({len(zero)} at step"
            assert any(at in line for line in findings) == bool(zero)


def test_updates_that_are_all_zero_are_the_same_weights() -> None:
    row = {"run": "r", "step": 2, "since": 1, "component": "update", "status": "zero", "name": "m"}
    other = row | {"step": 3, "since": 2}
    zeros = Zeros()
    for found in iter_measured(
        columns_of([row, row | {"name": "n"}, other, other | {"status": "ok"}])
    ):
        zeros.add(found)
    said = zeros.in_words({})
    assert said[0].startswith("r: step 2 holds the same weights as step 1 in all 2 measured")
    assert said[1].endswith("r update (1 at step 3: the weights did not change)")


def test_steps_with_the_same_matrices_share_them(rng: np.random.Generator) -> None:
    rows = random_rows(rng, are_alike=True)
    columns = columns_of([row for row in rows if row["component"] == "weight"])
    first, second, *_ = iter_measured(columns)
    assert first.matrices is second.matrices
    runs = [found.run for found in iter_measured(columns_of([rows[0], {**rows[0], "run": "b"}]))]
    assert runs == ["a", "b"]
    other = columns_of([{**rows[0], "name": "another"}, *rows[1:4]])
    assert Matrices.of(other, first.matrices) is not first.matrices
