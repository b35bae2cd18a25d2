"""Whole runs of every method: what must hold whichever way the weights are trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rankscope.training.config import Config
from rankscope.training.loop import Trainer
from rankscope.training.run_folder import state
from rankscope.training.schedule import Boundary
from rankscope.training.train import train

MakeConfig = Callable[..., Config]
ReadLog = Callable[[Path], list[dict[str, Any]]]
PHASES = {"method": "phases", "phases.methods": ["full", "relora"], "phases.lengths": [6]}
STABLE = {"adapter.rank_stabilised": True}
PUBLISHED = {"relora.published": "weiss2025", "relora.published.pruned_moments": 0.9}
METHODS: dict[str, dict[str, Any]] = {
    "warm-start": PHASES | {"phases.rates": [1.0, 2.0]},
    "finish": PHASES | {"phases.methods": ["relora", "full"], "phases.lengths": [12]},
    "sandwich": PHASES | {"phases.methods": ["full", "relora", "full"], "phases.lengths": [4, 9]},
    "automatic": PHASES
    | {
        "phases.methods": ["full", "lora"],
        "phases.lengths": [15],
        "phases.switch": "stable_rank",
        "phases.tolerance": 10.0,
        "phases.probe_every": 2,
        "schedule.restart_every": 0,
    },
    "budget": STABLE | {"relora.rank_policy": "budget", "relora.a_init": "grad_sample"},
    "saturation": STABLE | {"relora.rank_policy": "saturation", "relora.a_init": "mix"},
    "schedule": STABLE
    | {"relora.rank_policy": "schedule", "relora.final_rank": 6, "relora.a_init": "orthogonal"},
    "grad_top": {"relora.a_init": "grad_top"},
    "published": PUBLISHED,
    "epochs": {"data.order": "epochs"},
}
EVERY_METHOD = pytest.mark.parametrize("overrides", METHODS.values(), ids=METHODS.keys())
CLOCKS = ("time", "tokens_per_second")


def files(run: Path) -> dict[str, bytes]:
    """Every file that must not depend on whether a run was interrupted."""
    found = [p for part in ("checkpoints", "merges") for p in (run / part).rglob("*")]
    found += list(next(state.iter_states(run)).glob("*.safetensors"))
    return {str(p.relative_to(run)): p.read_bytes() for p in found if p.is_file()}


def entries(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in CLOCKS} for entry in log]


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").iterdir())


@EVERY_METHOD
@pytest.mark.slow
def test_a_run_resumed_at_any_step_ends_equal_to_the_bit(
    make_config: MakeConfig,
    read_log: ReadLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, Any],
) -> None:
    monkeypatch.setattr(state, "KEPT_STATES", 100)
    always = overrides | {
        "log.save_every": 1,
        "log.probe_sequences": 2,
        "log.validation_tokens": 24,
        "batch.micro_sequences": 2,
    }
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(make_config({"out": str(whole), **always}))
    expected, log = files(whole), entries(read_log(whole))
    for step in (5, 11):  # at a restart, and within a cycle; test_loop has every kind of step
        shutil.copytree(whole, part)
        for later in range(step + 1, 19):
            shutil.rmtree(part / "state" / f"step-{later:08d}")
        torch.manual_seed(step)
        train(make_config({"out": str(part), **always}), resume=True)
        assert files(part) == expected, step
        assert entries(read_log(part)) == log, step
        shutil.rmtree(part)


@EVERY_METHOD
@pytest.mark.slow
def test_nothing_that_happens_between_two_updates_changes_the_function(
    make_config: MakeConfig, read_log: ReadLog, overrides: dict[str, Any]
) -> None:
    config = make_config(overrides | {"schedule.learning_rate": 0.02})
    train(config)
    events = [e for e in read_log(Path(config.out)) if e.get("event") in ("restart", "phase")]
    assert events
    changes = [abs(e["loss_after"] - e["loss_before"]) for e in events]
    if overrides is PUBLISHED:
        assert changes[0] == 0  # nothing was learned in the first cycle
        assert max(changes) > 1e-3
    else:
        assert max(changes) < 1e-4


@EVERY_METHOD
@pytest.mark.slow
def test_low_rank_weights_are_the_ones_before_and_the_recorded_merges(
    make_config: MakeConfig, overrides: dict[str, Any]
) -> None:
    if overrides is PUBLISHED:
        pytest.skip("its merges are not what it records")
    config = make_config(overrides | {"log.save_every": 1})
    train(config)
    run = Path(config.out)
    for earlier, later in zip(checkpoints(run), checkpoints(run)[1:], strict=False):
        step = int(earlier.name.removeprefix("step-"))
        method = json.loads((later / "state.json").read_bytes())["method"]
        record = run / "merges" / f"{earlier.name}.safetensors"
        assert record.exists() == ((earlier / "adapter").exists() and has_boundary(run, step))
        if method == "full":
            continue
        before, after = (load_file(p / "model.safetensors") for p in (earlier, later))
        merged = load_file(record) if record.exists() else {}
        for name in [n for n in before if n.endswith("_proj.weight")]:
            module, expected = name.removesuffix(".weight"), before[name].astype(np.float64)
            if merged:
                a, b = (merged[f"{module}.{f}"].astype(np.float64) for f in ("lora_A", "lora_B"))
                expected = expected + merged[f"{module}.scale"] * (b @ a)
            np.testing.assert_array_equal(after[name], expected.astype(np.float32))


def has_boundary(run: Path, step: int) -> bool:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return any(e["step"] == step and e.get("event") in ("restart", "phase") for e in lines)


@pytest.mark.slow
def test_phases_train_what_they_say_and_the_checkpoints_show_it(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config(METHODS["sandwich"] | {"log.save_every": 1})
    train(config)
    run = Path(config.out)
    changes = [e for e in read_log(run) if e.get("event") == "phase"]
    assert ["rank" in e for e in changes] == [True, False]  # no adapters begin at the second
    methods = [json.loads((p / "state.json").read_bytes())["method"] for p in checkpoints(run)]
    assert methods == ["full"] * 5 + ["relora"] * 9 + ["full"] * 5
    adapted = [(p / "adapter").exists() for p in checkpoints(run)]
    assert adapted == [method == "relora" for method in methods]
    assert [p.stem for p in sorted((run / "merges").glob("*.safetensors"))] == [
        "step-00000009",
        "step-00000013",
    ]
    state_of = json.loads((run / "state/step-00000018/state.json").read_bytes())["adam_steps"]
    assert {steps for name, steps in state_of.items() if "_proj" in name} == {5}
    assert {steps for name, steps in state_of.items() if "_proj" not in name} == {18}


def test_an_automatic_phase_ends_early_and_says_why(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config(METHODS["automatic"])
    train(config)
    log = read_log(Path(config.out))
    assert [e["step"] for e in log if "rank_change" in e] == [2, 4, 6]
    assert [e["step"] for e in log if e.get("event") == "phase"] == [6]
    assert (Path(config.out) / "checkpoints/step-00000006").exists()  # before the change


@pytest.mark.slow
def test_ranks_and_subspaces_are_in_every_checkpoint_and_in_the_log(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config(METHODS["schedule"])
    train(config)
    run = Path(config.out)
    by_step = {}
    for path in checkpoints(run):
        known = json.loads((path / "state.json").read_bytes())["adapters"]
        factors = load_file(path / "adapter/adapter_model.safetensors")
        for name, begun in known.items():
            assert len(factors[f"base_model.model.{name}.lora_A.weight"]) == begun["rank"]
            assert 0 <= begun["captured_energy"] <= 1
            assert ("overlap" in begun) == (path.name != "step-00000000" and begun["rank"] != 2)
        by_step[int(path.name[5:])] = {begun["rank"] for begun in known.values()}
    assert by_step[0] == by_step[5] == {2}
    assert by_step[18] == {6}
    restarts = [e for e in read_log(run) if e.get("event") == "restart"]
    for entry in restarts:
        assert entry["rank_min"] <= entry["rank"] <= entry["rank_max"]
        assert 0 < entry["merged_rank_utilisation"] <= 1
        assert {"captured_energy", "overlap", "trained_parameters"} <= entry.keys()
    assert restarts[0]["trained_parameters"] < restarts[-1]["trained_parameters"]


@pytest.mark.slow
def test_a_budget_of_ranks_is_that_of_the_uniform_rank(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config(METHODS["budget"] | {"adapter.rank": 3})
    train(config)
    sizes = [e["trained_parameters"] for e in read_log(Path(config.out)) if "restart" in e]
    uniform = make_config({"out": str(Path(config.out).parent / "uniform"), "adapter.rank": 3})
    train(uniform)
    expected = next(e for e in read_log(Path(uniform.out)) if "restart" in e)["trained_parameters"]
    assert all(0.95 * expected <= size <= expected for size in sizes)


@pytest.mark.slow
def test_checkpoints_are_saved_and_kept_where_the_configuration_says(
    make_config: MakeConfig,
) -> None:
    settings = {"log.save_every": 8, "log.save_log_spaced": True, "log.keep_every": 4}
    config = make_config(settings)
    train(config)
    run = Path(config.out)
    saved = [int(path.name[5:]) for path in checkpoints(run)]
    assert saved == [0, 1, 2, 4, 5, 8, 10, 15, 16, 18]
    kept = make_config({"out": str(run.parent / "kept"), **settings, "log.keep_last": 2})
    train(kept)
    assert [int(p.name[5:]) for p in checkpoints(Path(kept.out))] == [0, 4, 8, 16, 18]
    assert len(list((Path(kept.out) / "merges").glob("*.safetensors"))) == 3


@pytest.mark.parametrize(("compiled", "resets"), [(True, [5, 10, 15]), (False, [])])
@pytest.mark.slow
def test_compiled_code_is_dropped_where_ranks_change(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, compiled: bool, resets: list[int]
) -> None:
    steps, when = [-1], []
    real_boundary = Trainer.pass_boundary

    def boundary(self: Trainer, boundary: Boundary) -> None:
        steps.append(boundary.step)
        real_boundary(self, boundary)

    monkeypatch.setattr(Trainer, "pass_boundary", boundary)
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(torch.compiler, "reset", lambda: when.append(steps[-1]))
    growing = METHODS["schedule"] | {"relora.final_rank": 6, "compile": compiled}
    train(make_config(growing))
    assert when == resets
    when.clear()
    fixed = make_config({"compile": True})
    train(make_config({"compile": True, "out": f"{fixed.out}-fixed"}))
    assert when == []
