"""The published behaviours, planted by the trainer's switches, and what a diagnosis names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankscope.diagnostics.diagnose import diagnose
from rankscope.training.config import Config
from rankscope.training.train import train

SETTINGS = {
    "schedule.steps": 30,
    "schedule.restart_every": 10,
    "schedule.restart_warmup_steps": 3,
    "schedule.learning_rate": 1e-2,
    "log.save_every": 10,
}
FOUND: dict[str, tuple[Any, set[str]]] = {
    "zero_factors": (True, {"adapter-dead"}),
    "merge_without_scale": (True, {"merge-changed-function"}),
    "factors_survive": (True, {"restart-reset-nothing"}),
    "merge_in_bfloat16": (True, {"merged-in-fewer-bits"}),
    "pruned_moments": (0.999, {"optimizer-not-reset"}),
    "zero_rate_step": (True, {"learning-rate-zero"}),
}


def diagnosed(config: Config) -> set[str]:
    train(config)
    return {finding.code for finding in diagnose(Path(config.out))}


@pytest.mark.slow
def test_a_run_without_switches_has_no_findings(make_config: Callable[..., Config]) -> None:
    assert diagnosed(make_config(SETTINGS)) == set()


@pytest.mark.parametrize("switch", FOUND)
@pytest.mark.slow
def test_each_switch_is_named_and_nothing_else(
    switch: str, make_config: Callable[..., Config]
) -> None:
    value, codes = FOUND[switch]
    config = make_config(SETTINGS | {f"relora.published.{switch}": value})
    found = diagnosed(config)
    assert codes <= found
    # A behaviour may show in the loss at restarts too, and in nothing else.
    assert found - codes <= {"restart-changed-loss", "merge-lost-to-rounding"}


@pytest.mark.parametrize("survive", [True, False])
@pytest.mark.slow
def test_the_log_is_about_the_factors_that_train(
    survive: bool, make_config: Callable[..., Config]
) -> None:
    config = make_config(SETTINGS | {"relora.published.factors_survive": survive})
    train(config)
    log = (Path(config.out) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    restarts = [line for line in map(json.loads, log) if line.get("event") == "restart"]
    assert len(restarts) == 2
    for line in restarts:
        assert (line["overlap"] == pytest.approx(1)) == survive
