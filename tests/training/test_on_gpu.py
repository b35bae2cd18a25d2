"""Training on a GPU: the losses of the processor, and the same bits after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankscope.training.train import train
from tests.devices import needs_gpu
from tests.training.conftest import MakeConfig

pytestmark = needs_gpu
ReadLog = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def losses(
    make_config: MakeConfig, read_log: ReadLog, tmp_path: Path
) -> Callable[..., list[float]]:
    """Train into a folder, and read the loss of every step."""

    def trained(name: str, settings: dict[str, Any], **options: Any) -> list[float]:
        train(make_config({"out": str(tmp_path / name), **settings}), **options)
        lines = read_log(tmp_path / name)
        return [line["loss"] for line in lines if "loss" in line]

    return trained


@pytest.mark.parametrize("method", ["full", "relora", "lora"])
def test_the_first_losses_are_those_of_the_processor(
    method: str, losses: Callable[..., list[float]]
) -> None:
    settings = {"method": method} | ({} if method == "relora" else {"schedule.restart_every": 0})
    here, there = (losses(d, {**settings, "device": d}) for d in ("cpu", "cuda"))
    assert len(here) == len(there) == 18
    assert there[:6] == pytest.approx(here[:6], rel=1e-5)
    assert there == pytest.approx(here, rel=1e-2)


def test_a_resumed_run_ends_with_the_same_bits(losses: Callable[..., list[float]]) -> None:
    settings = {"device": "cuda"}
    whole = losses("whole", settings)
    losses("stopped", settings, max_minutes=0)
    assert losses("stopped", settings, resume=True) == whole
