"""The answer in sentences: its numbers are those of the matrices, the logs and the scores."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rankscope as rs
from rankscope import answer
from rankscope.cli.app import app
from rankscope.errors import WrongSettingError
from rankscope.results.columns import EVALUATION_COLUMNS
from rankscope.results.results import Results, table_of, typed_evaluation
from tests.conftest import MODULES, Matrix, TinyRun
from tests.planted import effective_rank, full_weight

JUMPS = {10: (2.0, 2.25), 20: (1.5, 1.375)}  # losses before and after each restart


def test_the_answer_has_the_planted_numbers(planted: Path) -> None:
    first, second, third, sums, caution = answer(planted)
    sides = [48, 24, 24, 48, 48, 48, 48]
    pers = [effective_rank(full_weight(400, q, layer)) / q for q in sides for layer in (0, 1)]
    assert f"(PER, mean over matrices, step 0 → 400): full 1.000 → {np.mean(pers):.3f}" in first
    assert re.search(r"fell most in \w+ \(layer 1\) of \w+: 1\.000 → 0\.\d+, four fifths", second)
    assert "rank 4 of 48 and κ over rank 1 in relora, whole cycles" in third
    assert "16.00 of at most 16 after 4 merges in relora" in sums
    assert caution.startswith("These are single runs")


@pytest.fixture
def restarts(relora_run: TinyRun, tmp_path: Path) -> Path:
    """Results of a run whose log has the losses around its two restarts."""
    logged = [
        {"step": step, "event": "restart", "loss_before": before, "loss_after": after}
        for step, (before, after) in JUMPS.items()
    ]
    lines = [*logged, {"step": 30, "validation_loss": 1.25}]
    log = "".join(f"{json.dumps(line)}\n" for line in lines)
    (relora_run.path / "metrics.jsonl").write_text(log)
    chosen = {"components": ["merge", "merged_total"], "subspaces": 2, "jobs": 1}
    rs.analyze(relora_run.path, out=tmp_path / "results", **chosen)
    return tmp_path / "results"


def test_what_is_said_of_restarts_is_so(restarts: Path, relora_run: TinyRun) -> None:
    sums, overlaps, losses = answer(restarts)
    deltas = {m: [relora_run.delta(step, m) for step in JUMPS] for m in MODULES}
    total = np.mean([effective_rank(np.linalg.svd(a + b)[1][:4]) for a, b in deltas.values()])
    assert f"{total:.2f} of at most 4 after 2 merges in relora" in sums
    bases = {m: [np.linalg.svd(d) for d in both] for m, both in deltas.items()}
    left = [overlap(a[0][:, :2], b[0][:, :2]) for a, b in bases.values()]
    right = [overlap(a[2][:2].T, b[2][:2].T) for a, b in bases.values()]
    assert f"by (means over matrices) {np.mean(left):.2f} and {np.mean(right):.2f} in" in overlaps
    sides = np.array(list(MODULES.values()))
    chance = np.mean(2 / sides, axis=0)  # of two random planes
    assert f"unrelated ones {chance[0]:.2f} and {chance[1]:.2f}." in overlaps
    assert losses == (
        "A restart changed the loss on one batch by −0.125 to +0.250 in relora; at the end the "
        "loss is 1.250 in relora (nats per token of validation text)."
    )


def overlap(a: Matrix, b: Matrix) -> float:
    """Mean squared cosine of the principal angles of two planes, from their bases."""
    return float(np.mean(np.linalg.svd(a.T @ b, compute_uv=False) ** 2))


def test_the_command_prints_the_answer_alone(restarts: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(restarts), "--answer"])
    assert done.stdout.splitlines() == [f"• {sentence}" for sentence in answer(restarts)]
    assert not (restarts / "report.html").exists()
    wrong = CliRunner().invoke(app, ["report", str(restarts), "--answer", "--title", "a"])
    assert isinstance(wrong.exception, WrongSettingError)


def weights(run: str, per: dict[int, list[float]]) -> pd.DataFrame:
    """Rows of weights m0, m1, … with these PERs at each step."""
    place = {"run": run, "component": "weight", "role": "q", "status": "ok", "per_gaussian": 0.9}
    return table_of(
        place | {"step": step, "name": f"m{i}", "per": value, "per_resolved": value}
        for step, values in per.items()
        for i, value in enumerate(values)
    )


def answered(
    *tables: pd.DataFrame,
    group: str | None = None,
    runs: tuple[str, ...] = (),
    **others: pd.DataFrame,
) -> list[str]:
    """The answer to metrics, and to other tables by name."""
    results = Results(Path("nowhere"))
    vars(results).update(metrics=pd.concat(tables), **others)
    return answer(results, runs=runs, group=group)


def test_a_run_that_lost_nothing_is_said_to_have_lost_nothing() -> None:
    assert "no weight matrix fell" in answered(weights("a", {0: [0.5, 0.6], 9: [0.5, 0.6]}))[1]


def test_of_many_runs_the_extremes_are_named() -> None:
    many = [weights(f"run{i}", {0: [1.0], 9: [0.9 - i / 10]}) for i in range(6)]
    assert re.search(r"of 6 runs, .*: from 0\.400 in run5 to 0\.900 in run0;", answered(*many)[0])


def test_both_ends_are_means_over_the_same_matrices() -> None:
    table = weights("a", {0: [0.2, 0.8], 9: [0.1, np.nan]})
    assert "a 0.200 → 0.100" in answered(table)[0]


def test_runs_of_other_lengths_say_which_steps_they_are_from() -> None:
    first = answered(weights("a", {0: [1], 9: [0.5]}), weights("b", {0: [1], 5: [0.6]}))[0]
    assert "a 1.000 → 0.500 (step 0 → 9), b 1.000 → 0.600 (step 0 → 5)" in first


def test_the_answer_is_about_groups_at_their_common_steps() -> None:
    runs = [weights("x-0", {0: [1.0], 5: [0.8], 9: [0.1]}), weights("x-1", {0: [1.0], 5: [0.6]})]
    first, second = answered(*runs, weights("full", {0: [1.0], 5: [0.9]}), group=r"(.*)-\d")[:2]
    assert "step 0 → 5): full 1.000 → 0.900, x (2 runs) 1.000 → 0.700;" in first
    assert "of x-0: 1.000 → 0.100" in second
    (alone, *_) = answered(*runs, weights("y", {0: [1.0]}), runs=("x",), group=r"(.*)-\d")
    with pytest.raises(WrongSettingError, match="unknown run 'z'"):
        answered(*runs, runs=("x", "z"), group=r"(.*)-\d")
    assert "x (2 runs)" in alone and "y" not in alone.partition(":")[2]


def test_adapters_alone_are_answered_too() -> None:
    rows = {"run": "lora", "component": "adapter", "step": 5, "name": "m", "status": "ok"}
    whole = {"effective_rank": 3.5, "max_rank": 4, "per": 0.35, "per_resolved": 0.35}
    table = table_of([rows | whole])
    assert answered(table) == [
        "The adapters at the end have effective rank (mean over matrices) 3.50 of 4 in lora."
    ]


def test_a_number_that_rounding_may_have_made_is_two() -> None:
    table = weights("a", {0: [0.8, 0.6], 9: [0.4, 0.2]})
    noisy = table.assign(per_resolved=table["per_resolved"].where(table["step"] == 0, 0.1))
    first, second = answered(noisy)
    assert "a 0.700 → 0.100–0.300" in first
    assert "0.800 → 0.100–0.400" in second
    assert "0.700 → 0.000–0.300" in answered(noisy.assign(
        per_resolved=noisy["per_resolved"].where(noisy["step"] == 0)))[0]  # fmt: skip


def test_the_loss_is_that_of_evaluated_text_with_its_interval() -> None:
    scores = {"task": "novels", "group": "all", "metric": "loss", "step": 9, "n": 9}
    rows = [
        scores | {"run": run, "value": value, "ci_low": value - half, "ci_high": value + half}
        for run, value, half in (("x-0", 2.0, 0.25), ("x-1", 3.0, 0.5), ("y", 4.0, 0.125))
    ]
    evaluation = typed_evaluation(pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS)))
    tables = [weights(run, {0: [0.5], 9: [0.4]}) for run in ("x-0", "x-1", "y")]
    *_, losses, caution = answered(*tables, evaluation=evaluation)
    assert "is 2.000 ± 0.25 in x-0, 3.000 ± 0.5 in x-1 and 4.000 ± 0.12 in y" in losses
    assert "nats per token of novels text" in losses and caution.startswith("These are single")
    *_, losses = answered(*tables, evaluation=evaluation, group=r"(.*)-\d")
    assert "is 2.000–3.000 in x (2 runs) and 4.000 ± 0.12 in y" in losses


def test_the_loss_of_single_batches_is_no_answer() -> None:
    training = pd.DataFrame({"run": "a", "step": [0, 9], "loss": [3.0, 2.0]})
    said = answered(weights("a", {0: [0.5], 9: [0.4]}), training=training)
    assert not any("loss" in sentence for sentence in said)
