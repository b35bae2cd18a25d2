"""The table, its files and the record, from scores that no model has to make."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from rankscope.checkpoints.contents import Skip
from rankscope.evaluation.evaluation_folder import Evaluation, Scored, write_results
from rankscope.evaluation.score_files import (
    PairScores,
    ScoreFile,
    Scores,
    write_scores,
)
from rankscope.pipeline.curves import Curve, curve_path
from rankscope.results.columns import EVALUATION_COLUMNS
from rankscope.results.record import read_record
from rankscope.results.results import open_results
from rankscope.scoring.blimp import Paradigm
from rankscope.scoring.perplexity import DocumentScores

KEY = ["run", "step", "task", "group", "metric"]
COUNTS = {"blimp": 5, "novel": 4}


def pair_scores(seed: int) -> PairScores:
    paradigms = (Paradigm("one", "binding", "syntax", 3), Paradigm("two", "", "", 2))
    return PairScores(paradigms, np.random.default_rng(seed).normal(size=5))


def document_scores(seed: int) -> DocumentScores:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(5, 50, size=4)
    losses = tokens * rng.gamma(4.0, size=4)
    return DocumentScores(
        losses=losses,
        tokens=tokens,
        bytes=3 * tokens,
        words=tokens // 2,
        first_losses=losses / 2,
        first_tokens=tokens // 2,
        sources=("a", "a", 'b, "c"', None),
        domains=("x", "y", None, None),
        is_prefixed=True,
    )


SCORES = {"blimp": pair_scores, "novel": document_scores}


def evaluation_of(out: Path, scores: dict[tuple[str, str, int], Scores]) -> Evaluation:
    """What an evaluation of runs, tasks and steps leaves behind."""
    files: dict[str, list[ScoreFile]] = {}
    curves: dict[str, Curve] = {}
    for (run, task, step), some in sorted(scores.items(), key=lambda item: item[0]):
        kind = "pairs" if task == "blimp" else "text"
        curve = Curve(run, f"/runs/{run}", task, f"scores/{run}/{task}", {"kind": kind})
        file = ScoreFile("k", step, "none", 2.0, some)
        write_scores(curve_path(out, curve.folder, step), file)
        curves[curve.folder] = curve
        files.setdefault(curve.folder, []).append(file)
    scored = [Scored(curves[folder], tuple(some)) for folder, some in files.items()]
    asked = {run: tuple(s for r, _, s in scores if r == run) for run, _, _ in scores}
    return evaluation_with(curves=tuple(curves.values()), asked=asked, scored=tuple(scored))


def evaluation_with(**what: Any) -> Evaluation:
    nothing: dict[str, Any] = {"skips": (), "notes": (), "mended": (), "computed": 0, "key": "k"}
    nothing |= {"curves": (), "asked": {}, "planned": frozenset(), "folders": frozenset()}
    return Evaluation(**(nothing | {"scored": ()} | what))


PLACES = [
    (run, task, step) for run in ("b", "a") for step in (20, 100, 3) for task in ("novel", "blimp")
]


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    scores: dict[tuple[str, str, int], Any] = {
        place: SCORES[place[1]](seed) for seed, place in enumerate(PLACES)
    }
    return write_results(tmp_path, evaluation_of(tmp_path, scores)).table


def test_it_has_the_columns_and_types_of_every_such_table(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == EVALUATION_COLUMNS
    whole, number = {"step", "n"}, {"value", "ci_low", "ci_high"}
    assert {name for name in EVALUATION_COLUMNS if table[name].dtype == "Int64"} == whole
    assert {name for name in EVALUATION_COLUMNS if table[name].dtype == "float64"} == number
    assert all(table[name].dtype == "str" for name in set(EVALUATION_COLUMNS) - whole - number)


def test_every_number_is_there_once_in_order(table: pd.DataFrame) -> None:
    assert not table.duplicated(KEY).any()
    places = list(table[["run", "task", "step"]].drop_duplicates().itertuples(index=False))
    assert [tuple(place) for place in places] == sorted(PLACES)


def test_n_counts_documents_and_pairs(table: pd.DataFrame) -> None:
    for task, count in COUNTS.items():
        whole = table[(table["task"] == task) & (table["group"] == "all")]
        # Means over groups are of the documents that have one.
        assert set(whole.loc[~whole["metric"].str.startswith("macro"), "n"]) == {count}


def test_both_files_and_the_table_returned_are_equal_to_the_bit(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    assert_frame_equal(open_results(tmp_path).evaluation, table, check_exact=True)
    with (tmp_path / "evaluation.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in EVALUATION_COLUMNS:
        written = [row[name] for row in rows]
        if table[name].dtype == "float64":  # Python reads what is nearest to the decimals
            numbers = np.array([float(one or "nan") for one in written])
            np.testing.assert_array_equal(numbers, table[name])
        else:
            assert written == [str(one) for one in table[name]]


def test_the_same_scores_leave_every_file_but_the_record_untouched(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    names = ("evaluation.parquet", "evaluation.csv", "evaluation-skipped.jsonl")
    before = [(tmp_path / name).stat().st_mtime_ns for name in names]
    scores: dict[tuple[str, str, int], Any] = {
        place: SCORES[place[1]](seed) for seed, place in enumerate(PLACES)
    }
    again = write_results(tmp_path, evaluation_of(tmp_path, scores))
    assert_frame_equal(again.table, table)
    assert [(tmp_path / name).stat().st_mtime_ns for name in names] == before


def test_the_record_has_the_first_and_last_numbers(table: pd.DataFrame, tmp_path: Path) -> None:
    record = read_record(tmp_path / "evaluation.json")
    assert record["schema_version"] == 1 and record["skipped"] == []
    assert {"python", "rankscope", "numpy"} <= record["versions"].keys()
    found = {(one["run"], one["task"]): one for one in record["evaluations"]}
    assert found.keys() == {(run, task) for run, task, _ in PLACES}
    for (run, task), one in found.items():
        assert one["steps"] == [3, 20, 100] and one["path"] == f"/runs/{run}"
        for name, step in (("first", 3), ("last", 100)):
            for metric, measure in one[name].items():
                row = table.set_index(KEY).loc[(run, step, task, "all", metric)]
                numbers = {k: None if pd.isna(v) else v for k, v in row.items()}
                assert numbers == measure


def test_speed_is_pairs_or_tokens_per_second(table: pd.DataFrame, tmp_path: Path) -> None:
    for one in read_record(tmp_path / "evaluation.json")["evaluations"]:
        assert one["seconds"] == 6.0
        if one["task"] == "blimp":
            assert one["pairs_per_second"] == 2.5
        else:
            assert one["tokens_per_second"] > 0


def test_what_is_not_finite_is_null_in_the_record(tmp_path: Path) -> None:
    scores = document_scores(1)
    scores.losses[2] = np.nan
    found = evaluation_of(tmp_path, {("a", "novel", 3): scores})
    table = write_results(tmp_path, found).table
    loss = table[table["metric"] == "loss"].set_index("group")
    assert math.isnan(loss.loc["all", "value"]) and not math.isnan(loss.loc["source:a", "value"])
    assert (
        read_record(tmp_path / "evaluation.json")["evaluations"][0]["last"]["loss"]["value"] is None
    )


def test_where_nothing_was_scored_only_the_reasons_are_written(tmp_path: Path) -> None:
    skip = Skip(str(tmp_path / "run"), "", "unreadable", "why")
    write_results(tmp_path, evaluation_with(skips=(skip,)))
    (path,) = tmp_path.iterdir()
    assert path.name == "evaluation-skipped.jsonl"
    assert json.loads(path.read_text()) == vars(skip)


def test_a_folder_with_an_evaluation_alone_opens(table: pd.DataFrame, tmp_path: Path) -> None:
    results = open_results(tmp_path)
    assert len(results.evaluation) == len(table) and results.metrics.empty
    assert results.training.empty
