from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import evaluation, evaluation_baselines, evaluation_batches
from benchmarks.evaluation_baselines import BATCHED, OURS, SINGLY, Case, documents, scorers
from benchmarks.memory import Measured
from benchmarks.sentences import PREFIX, blimp_pairs, synthetic_pairs
from rankscope.training.config import ModelConfig

SMALL = Case(ModelConfig(16, 24, 2, 4, 2, initialisation="torch"), 61, 20, 3, 24)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_all_scorers_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_baselines, "SENTENCES_AT_ONCE", 7)
    monkeypatch.setattr(evaluation_baselines, "WINDOWS_AT_ONCE", 2)
    pairs, text = synthetic_pairs(SMALL.pairs, SMALL.vocab_size), documents(SMALL)
    ours, *others = scorers(SMALL).values()
    assert len(np.unique(ours.pairs(pairs))) == len(pairs)
    assert np.all(ours.text(text) > 0)
    for other in others:
        np.testing.assert_allclose(other.pairs(pairs), ours.pairs(pairs), atol=1e-5)
        np.testing.assert_allclose(other.text(text), ours.text(text), rtol=1e-6)


def test_scorers_that_differ_are_not_compared() -> None:
    scores = {OURS: np.array([1.0, 2.0]), SINGLY: np.array([1.0, 2.5]), BATCHED: np.array([1, 2])}
    contestants = {name: lambda score=score: score for name, score in scores.items()}
    assert evaluation.largest_difference(contestants) == 0.5
    with pytest.raises(RuntimeError, match=r"x: the scorers differ by 0\.5 nats"):
        evaluation.refuse_other_scores("x", 0.5)
    with pytest.raises(RuntimeError, match="differ by nan"):
        evaluation.refuse_other_scores("x", np.nan)


def test_synthetic_pairs_have_the_lengths_of_blimp() -> None:
    pairs = synthetic_pairs(3000, 50_304)
    lengths = pairs.lengths - 1  # without the prefix
    assert lengths.mean() == pytest.approx(10.4, rel=0.05)
    assert 1 - pairs.counted.sum() / lengths.sum() == pytest.approx(0.38, abs=0.03)
    assert np.mean(lengths[::2] == lengths[1::2]) == pytest.approx(0.88, abs=0.02)
    assert pairs.counted.min() >= 1
    assert pairs.ids.max() < 50_304
    starts = pairs.lengths.cumsum() - pairs.lengths
    assert set(pairs.ids[starts]) == {PREFIX}
    assert np.count_nonzero(pairs.ids == PREFIX) == len(starts)


def test_pairs_of_blimp_come_from_all_paradigms(tmp_path: Path) -> None:
    for name in ("one", "two"):
        rows = [
            {"sentence_good": f"{name} {i} is.", "sentence_bad": f"{name} {i} are."}
            for i in range(10)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = blimp_pairs(tmp_path, 4, 300)
    assert len(pairs) == 4
    assert pairs.counted.min() > 0
    assert pairs.ids.max() < 300


def test_ratios_compare_neighbouring_turns() -> None:
    seconds = {OURS: [2.0, 4.0], SINGLY: [4.0, 4.0], BATCHED: [2.0, 12.0]}
    turns = {
        name: [Measured(s, 2 * s, None, None, None, "") for s in found]
        for name, found in seconds.items()
    }
    singly, batched = evaluation.speed_rows("x", turns, count=12, unit="pairs")
    assert (singly.value.lowest, singly.value.highest) == (1.0, 2.0)
    assert (batched.value.lowest, batched.value.highest) == (1.0, 3.0)
    assert singly.detail == "4 and 3 pairs/s; processor time 1.50, fastest turns 2.00"


def test_memory_is_ours_over_theirs() -> None:
    peaks = {
        OURS: {"before": 100.0, "peak": 150.0},
        SINGLY: {"before": 200.0, "peak": 300.0},
        BATCHED: {"before": 200.0, "peak": 1500.0},
    }
    singly, batched = evaluation.memory_rows("x", peaks)
    assert (singly.value.median, batched.value.median) == (0.5, 0.1)
    assert batched.detail == "150 MB (100 before) and 1,500 MB (200 before)"


def test_the_benchmark_fills_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "CASES", {"small": SMALL})
    out = tmp_path / "evaluation.json"
    evaluation.main(["--rounds", "2", "--out", str(out), "--only", "small", "--no-memory"])
    found = json.loads(out.read_text())
    shown = capsys.readouterr().out
    assert len(found["rows"]) == 4
    assert all(row["what"] in shown for row in found["rows"])
    assert len(found["runs"]["small, pairs"][OURS]) == 2
    assert found["settings"]["transformers"]


@pytest.mark.parametrize("scorer", [OURS, SINGLY, BATCHED])
@pytest.mark.parametrize("task", ["pairs", "text"])
def test_a_process_reports_its_memory_before_and_in_all(
    task: str, scorer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_baselines, "CASES", {"small": SMALL})
    evaluation_baselines.main([scorer, task, "--case", "small"])
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["before"] <= found["peak"]


def test_batches_of_every_size_are_compared_with_the_fastest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_batches, "CASES", {"small": SMALL})
    monkeypatch.setattr(evaluation_batches, "WINDOWS", (8, 24))
    evaluation_batches.main(["--rounds", "1", "--tokens", "48"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 3
    for line in lines:
        times = [float(word) for word in line.split()[-len(evaluation_batches.SIZES) :]]
        assert min(times) == 1
