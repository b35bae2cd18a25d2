from __future__ import annotations

from typing import Any

import pytest

from rankscope.training.config_file import config_from
from rankscope.training.departures import LIALIN, WEISS, departures

RELORA = {"method": "relora", "schedule.restart_every": 100}
PUBLISHED = {
    "precision": "bfloat16",
    "optimizer.beta2": 0.999,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip": 0.0,
    "relora.published.zero_factors": True,
    "relora.published.merge_without_scale": True,
    "relora.published.factors_survive": True,
    "relora.published.merge_in_bfloat16": True,
    "relora.published.pruned_moments": 0.999,
    "relora.published.dropout": 0.1,
    "relora.published.zero_rate_step": True,
}


def found(settings: dict[str, Any]) -> list[str]:
    return departures(config_from(settings))


def test_a_run_without_adapters_departs_from_nothing() -> None:
    assert found({"method": "full"}) == []


def test_as_published_only_the_dtype_of_parameters_differs() -> None:
    (line,) = found(RELORA | PUBLISHED)
    assert "float32" in line and LIALIN in line and WEISS not in line


@pytest.mark.parametrize(
    ("key", "ours", "says"),
    [
        ("precision", "float32", "forward pass"),
        ("optimizer.beta2", 0.95, "beta2 0.95"),
        ("optimizer.weight_decay", 0.0, "weight decay 0 "),
        ("optimizer.weight_decay", 0.1, "weight decay 0.1 "),
        ("optimizer.clip", 1.0, "norm 1 "),
        ("relora.published.zero_factors", False, "only B is zero"),
        ("relora.published.merge_without_scale", False, "scale · B·A"),
        ("relora.published.factors_survive", False, "new A and B stay"),
        ("relora.published.merge_in_bfloat16", False, "float64"),
        ("relora.published.pruned_moments", 0.0, "state of A and B deleted"),
        ("relora.published.pruned_moments", 0.9, "90.0% of"),
        ("relora.published.dropout", 0.0, "no dropout"),
        ("relora.published.dropout", 0.2, "dropout 0.2"),
        ("relora.published.zero_rate_step", False, "no step has rate 0"),
        ("adapter.rank_stabilised", True, "sqrt(rank)"),
        ("relora.a_init", "grad_top", "grad_top"),
    ],
)
def test_each_departure_is_one_line_of_its_own(key: str, ours: object, says: str) -> None:
    before = found(RELORA | PUBLISHED)
    (line,) = set(found(RELORA | PUBLISHED | {key: ours})) - set(before)
    assert says in line
    assert "both" in line or LIALIN in line or WEISS in line
    assert len(line) <= 98


def test_what_cannot_matter_is_not_said() -> None:
    lora = " ".join(found({"method": "lora"}))
    assert "merge" not in lora and "restart's" not in lora and "deleted" not in lora
    assert "merge adds scale" not in " ".join(found(RELORA | {"adapter.alpha": 4.0}))
    assert "merge adds scale" in " ".join(found(RELORA | {"adapter.alpha": 8.0}))


def test_adapters_merged_at_the_end_of_a_phase_have_no_restart() -> None:
    phases = {"phases.methods": ["lora", "full"], "phases.lengths": [500]}
    lines = " ".join(found({"method": "phases"} | phases))
    assert "a merge adds" in lines and "at a restart" not in lines
