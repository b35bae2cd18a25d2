import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankscope.diagnostics.diagnose import diagnose
from tests.analysis.series import write_step
from tests.conftest import TinyRun, random_weights
from tests.diagnostics.surgery import of


def write_log(run: TinyRun, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record) + "\n" for record in records)
    (run.path / "metrics.jsonl").write_text(text)


def rates(*restarts: int, low: float = 0.1, warmup: int = 3) -> list[dict[str, Any]]:
    """A slow decay with a warm-up after every restart; a record for every step."""
    records = []
    for step in range(31):
        rate = 1e-2 * (1 - step / 100)
        since = min((step - r for r in restarts if step >= r), default=warmup)
        if since < warmup:
            rate *= low + (1 - low) * since / warmup
        records.append({"step": step, "loss": 2.0, "learning_rate": rate})
    return records


def test_a_warmup_at_every_restart_is_right(relora_run: TinyRun) -> None:
    write_log(relora_run, rates(10, 20))
    assert not diagnose(relora_run.path)


def test_a_sparse_log_that_shows_no_warmup_says_nothing(relora_run: TinyRun) -> None:
    write_log(relora_run, rates(10, 20)[::4])
    assert not diagnose(relora_run.path)


def test_a_warmup_elsewhere_is_found(relora_run: TinyRun) -> None:
    write_log(relora_run, rates(15, 25))
    found = diagnose(relora_run.path)
    assert {one.code for one in found} == {"learning-rate-misaligned", "restart-without-warmup"}
    assert found.table.set_index("code")["steps"]["learning-rate-misaligned"] == [15, 25]


def test_a_warmup_where_a_phase_begins_is_right(relora_run: TinyRun) -> None:
    records = rates(5, 10, 20)
    write_log(relora_run, [*records, {"step": 5, "event": "phase", "method": "relora"}])
    assert not diagnose(relora_run.path)
    write_log(relora_run, records)
    assert of(relora_run.path, "learning-rate-misaligned").steps == (5,)


def test_a_restart_at_full_rate_is_found(relora_run: TinyRun) -> None:
    write_log(relora_run, rates(10))
    assert of(relora_run.path, "restart-without-warmup").steps == (20,)


def test_a_rate_of_zero_is_noted(relora_run: TinyRun) -> None:
    write_log(relora_run, rates(10, 20, low=0.0))
    finding = of(relora_run.path, "learning-rate-zero")
    assert finding.severity == "note" and finding.steps == (10, 20)


def test_a_decay_that_ends_at_zero_is_no_finding(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    log = [{"step": s, "loss": 1.0, "learning_rate": 1e-3 * (1 - s / 30)} for s in range(0, 31, 5)]
    for step in (10, 20, 30):
        moved = {name: value * (1 + step / 100) for name, value in weights.items()}
        write_step(tmp_path, step, moved, log=[one for one in log if one["step"] <= step])
    assert not diagnose(tmp_path)


def restart(step: int, before: float, after: float) -> dict[str, Any]:
    return {"step": step, "event": "restart", "loss_before": before, "loss_after": after}


@pytest.mark.parametrize(("after", "is_found"), [(2.0 + 1e-6, False), (2.2, True)])
def test_a_loss_that_jumps_at_a_restart_is_an_error(
    after: float, is_found: bool, relora_run: TinyRun
) -> None:
    write_log(relora_run, [*rates(10, 20), restart(10, 2.0, 2.0), restart(20, 2.0, after)])
    if is_found:
        finding = of(relora_run.path, "restart-changed-loss")
        assert finding.steps == (20,) and finding.numbers["largest_change"] == pytest.approx(0.1)
    else:
        assert not diagnose(relora_run.path)


def test_a_restart_of_which_no_merge_is_on_record_is_found(relora_run: TinyRun) -> None:
    write_log(
        relora_run, [*rates(5, 10, 20), *(restart(step, 2.0, 2.0) for step in (5, 10, 20, 40))]
    )
    finding = of(relora_run.path, "merge-not-recorded")
    assert finding.steps == (5,)  # 40 is beyond the last checkpoint: the run goes on


@pytest.mark.parametrize(("age", "is_found"), [(10, False), (25, True)])
def test_a_state_of_the_trainer_that_outlives_a_restart_is_found(
    age: int, is_found: bool, relora_run: TinyRun
) -> None:
    folder = relora_run.path / "state" / "step-00000030"
    folder.mkdir(parents=True)
    name = "model.layers.0.mlp.up_proj"
    ages = {f"{name}.lora_A": age, f"{name}.lora_B": age, "model.embed_tokens.weight": 30}
    (folder / "state.json").write_text(json.dumps({"step": 30, "adam_steps": ages}))
    if is_found:
        finding = of(relora_run.path, "optimizer-not-reset")
        assert finding.numbers == {"counter": 25, "age": 10}
    else:
        assert not diagnose(relora_run.path)
