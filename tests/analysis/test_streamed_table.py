"""Laws of memory: neither rows nor spectra of all steps are in it at once."""

from __future__ import annotations

import tracemalloc
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.analysis.results_folder import write_results
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.analysis.summary import Gathered
from rankscope.results import parquet_tables
from rankscope.results.columns import COLUMNS
from rankscope.results.csv_tables import as_csv
from rankscope.results.results import open_results
from rankscope.results.step_rows import Spool, StepRows
from rankscope.results.typed_columns import INTEGERS
from rankscope.spectra.spectrum import Spectrum
from tests.analysis.series import analysed, answered, weights, write_step
from tests.analysis.summarised import columns_of, summarise
from tests.conftest import TinyRun

MATRICES = 250  # of a step
MOST = 1.5e6  # bytes; packed, the rows that are added take 10 times as many


@dataclass(frozen=True)
class Stepped:
    """The same rows at another step."""

    kept: StepRows
    step: int

    def __getattr__(self, name: str) -> object:
        return getattr(self.kept, name)

    def load(self) -> Stepped:
        return self

    @property
    def columns(self) -> object:
        columns = self.kept.columns
        integers = columns.numbers[INTEGERS].copy()
        integers[columns.kinds[INTEGERS].index("step")] = self.step
        return replace(columns, numbers={**columns.numbers, INTEGERS: integers})


@pytest.fixture(scope="module")
def one_step() -> StepRows:
    place = {"run": "r", "step": 0, "role": "up", "component": "weight", "status": "ok"}
    noise = {"noise_source": "storage", "dtype": "float32", "condition_number_status": "ok"}
    numbers = {"effective_rank": 4.0, "per": 0.5, "per_resolved": 0.5, "numerical_rank": 8}
    empty = dict.fromkeys(COLUMNS)
    rng = np.random.default_rng(0)
    floats = [name for name in COLUMNS[COLUMNS.index("per_error") :] if name not in noise]
    rows = [
        empty
        | dict(zip(floats[::2], rng.uniform(0.1, 0.9, len(floats[::2])).tolist(), strict=True))
        | {**place, **noise, **numbers, "layer": n, "name": f"layers.{n}.mlp.up_proj.weight"}
        for n in range(MATRICES)
    ]
    return StepRows.of(rows, {})


def peak(out: Path, parts: list[Stepped]) -> int:
    analysis = Analysis((), (), (), 0, "k", (), Selection(), tuple(parts), {})  # type: ignore[arg-type]
    tracemalloc.start()
    write_results(out, analysis)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_ten_times_the_rows_take_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: StepRows
) -> None:
    monkeypatch.setattr(parquet_tables, "GROUP", 4 * MATRICES)
    few, many = (
        peak(tmp_path, [Stepped(one_step, step) for step in range(count)]) for count in (6, 60)
    )
    assert many - few < MOST
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 60 * MATRICES
    assert open_results(tmp_path).metrics["step"].nunique() == 60


def test_what_waits_in_a_spool_comes_back(tmp_path: Path, one_step: StepRows) -> None:
    spool = Spool(tmp_path)
    other = replace(one_step, about={"is": "other"}, lines=one_step.lines[:50])
    kept = [spool.add(one) for one in (one_step, other)]
    assert [one.load() for one in (*kept, *kept[::-1])] == [one_step, other, other, one_step]
    assert [path.name for path in tmp_path.iterdir()] == []


def test_spectra_leave_memory_when_their_step_is_stored(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 7):
        write_step(tmp_path / "run", step, weights(rng))
    references: list[weakref.ref[Spectrum]] = []
    most = [0]
    entries = SpectraFiles.entries

    def counted(self, task, result):  # type: ignore[no-untyped-def]
        made = entries(self, task, result)
        for entry in made:
            references.append(weakref.ref(entry.spectrum))
        most[0] = max(most[0], sum(one() is not None for one in references))
        return made

    monkeypatch.setattr(SpectraFiles, "entries", counted)
    found = answered(Question(paths=(tmp_path / "run",)), tmp_path / "out")
    assert len(references) == found.computed == 4 + 5 * 8
    assert most[0] <= 2 * 8


def test_a_summary_does_not_depend_on_the_pieces(relora_run: TinyRun) -> None:
    rows = list(analysed(relora_run.path).rows)
    whole = summarise(rows)
    for size in (1, 17):
        gathered = Gathered()
        for start in range(0, len(rows), size):
            gathered.add(columns_of(rows[start : start + size]))
        assert gathered.summary() == whole


def test_lines_of_a_summary_are_means_and_medians_of_the_table(relora_run: TinyRun) -> None:
    found = analysed(relora_run.path)
    table = found.table.dropna(subset=["effective_rank"])
    for line in summarise(found.rows).lines:
        window = table["window"].fillna("") == line.window
        own = table[window & (table["component"] == line.component) & (table["role"] == line.role)]
        ends = own["step"].min(), own["step"].max()
        first, last = (own[own["step"] == step] for step in ends)
        assert line.steps == ends and line.matrices == len(last)
        assert line.per == pytest.approx((first["per"].mean(), last["per"].mean()))
        assert line.rank == (first["numerical_rank"].median(), last["numerical_rank"].median())


def test_roles_of_other_steps_have_no_part_in_the_ends_of_all_roles() -> None:
    rows = []
    for step, role, per in [
        (0, "q", 0.1),
        (5, "q", 0.2),
        (5, "v", 0.4),
        (9, "v", 0.6),
        (5, "k", 1),
    ]:
        row = {"run": "r", "component": "weight", "role": role, "status": "ok"}
        rows.append(row | {"step": step, "per": per, "effective_rank": 10 * per})
    found = summarise(rows)
    (whole,) = found.overall
    assert (whole.steps, whole.per, whole.matrices) == ((0, 9), (0.1, 0.6), 1)
    assert {line.role: line.steps for line in found.lines} == {
        "q": (0, 5),
        "k": (5, 5),
        "v": (5, 9),
    }


def test_the_table_is_that_of_rows_in_memory(relora_run: TinyRun, tmp_path: Path) -> None:
    """Whatever way: the lines of CSV are those of the rows, and so is Parquet."""
    kept = analysed(relora_run.path, out=tmp_path / "out")
    rows = analysed(relora_run.path).rows
    assert kept.rows == rows
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == as_csv(rows, COLUMNS)
