from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import train
from benchmarks.training_arms import FULL, RELORA, TRANSFORMERS, Arm, Case, Way, arms
from rankscope.training.config import ModelConfig

SMALL = Case(ModelConfig(16, 24, 2, 4, 2), 31, 4, 12, rank=2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def contestants() -> dict[str, Arm]:
    return arms(SMALL, Way())


def test_all_begin_at_the_same_loss_and_learn(contestants: dict[str, Arm]) -> None:
    first = {name: arm.step() for name, arm in contestants.items()}
    assert first[RELORA] == first[FULL] == pytest.approx(first[TRANSFORMERS], rel=1e-5)
    assert all(arm.step() < first[name] for name, arm in contestants.items())


def test_transformers_and_the_trainer_take_the_same_step(contestants: dict[str, Arm]) -> None:
    for _ in range(3):
        losses = [contestants[name].step() for name in (TRANSFORMERS, FULL)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_memory_is_that_of_what_is_trained(contestants: dict[str, Arm]) -> None:
    for arm in contestants.values():
        trained = sum(p.nbytes for p in arm.parameters)
        steps = 4 * len(arm.parameters)  # Adam counts them in a float32 for every parameter
        assert arm.memory() == {"gradients": trained, "optimizer": 2 * trained + steps}
    weights = sum(p.nbytes for p in contestants[FULL].model.parameters())
    assert contestants[FULL].memory()["gradients"] == weights
    assert contestants[RELORA].memory()["gradients"] < weights


def test_autocast_rounds_the_step_of_every_arm(contestants: dict[str, Arm]) -> None:
    for name, arm in arms(SMALL, Way(bf16=True)).items():
        exact, rounded = contestants[name].step(), arm.step()
        assert rounded != exact
        assert rounded == pytest.approx(exact, rel=0.01)


def test_every_arm_has_its_turn_in_every_round(contestants: dict[str, Arm]) -> None:
    turns = train.take_turns(contestants, rounds=3, seconds=0.0)
    assert list(turns) == list(contestants)
    assert all(len(found) == 3 and min(t.wall for t in found) > 0 for found in turns.values())


def test_ratios_are_of_neighbouring_turns() -> None:
    seconds = {TRANSFORMERS: [4.0, 4.0], FULL: [2.0, 4.0], RELORA: [3.0, 2.0]}
    turns = {name: [train.Seconds(s, 2 * s) for s in found] for name, found in seconds.items()}
    against, relora = train.speed_rows("x", turns, tokens=12)
    assert (against.value.lowest, against.value.highest) == (1.0, 2.0)
    assert (relora.value.lowest, relora.value.highest) == (0.5, 1.5)
    assert against.detail == "4 and 3 tokens/s; processor time 1.50, fastest turns 2.00"


def test_the_benchmark_fills_table_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "CASES", {"small": SMALL})
    arguments = ["--rounds", "2", "--seconds", "0", "--out", str(tmp_path / "train.json")]
    train.main([*arguments, "--only", "small"])
    found = json.loads((tmp_path / "train.json").read_text())
    shown = capsys.readouterr().out
    assert len(found["rows"]) == 3
    assert all(row["what"] in shown for row in found["rows"])
    assert len(found["runs"]["small"][RELORA]) == 2
    assert found["settings"]["transformers"]
