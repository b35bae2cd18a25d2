"""The whole trainer in two processes against the same run in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rankscope.training.config import Config
from rankscope.training.config_file import to_toml
from rankscope.training.run import train
from tests.training.several import Ended, run_processes

MakeConfig = Callable[..., Config]
ReadLog = Callable[[Path], list[dict[str, Any]]]
COMMAND = "import sys; from rankscope.cli import main; sys.argv[0] = 'rankscope'; main()"
ADAPTIVE = {
    "adapter.rank_stabilised": True,
    "relora.rank_policy": "budget",
    "relora.a_init": "grad_top",
    "batch.micro_sequences": 1,
}


def train_in_two(config: Config, folder: Path, *options: str) -> list[Ended]:
    (folder / "config.toml").write_text(to_toml(config))
    return run_processes(
        folder, "-c", COMMAND, "train", str(folder / "config.toml"), *options, limit=120
    )


@pytest.mark.parametrize("overrides", [{}, ADAPTIVE], ids=["fixed", "budget"])
def test_two_processes_train_what_one_does(
    make_config: MakeConfig, read_log: ReadLog, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    one, two = (make_config({"out": str(tmp_path / n), **overrides}) for n in ("one", "two"))
    train(one)
    ended = train_in_two(two, tmp_path)
    assert [process.code for process in ended] == [0, 0], ended[0].output + ended[1].output
    assert ended[1].output == ""  # one of them speaks
    logs = [[e for e in read_log(Path(c.out)) if "loss_before" in e] for c in (one, two)]
    assert [e["step"] for e in logs[0]] == [e["step"] for e in logs[1]] == [5, 10, 15]
    for ours, theirs in zip(*logs, strict=True):
        assert theirs["loss_after"] == pytest.approx(ours["loss_after"], rel=1e-5)
        assert theirs["trained_parameters"] == ours["trained_parameters"]
    name = "checkpoints/step-00000018/model.safetensors"
    ours, theirs = (load_file(Path(c.out) / name) for c in (one, two))
    for key, weight in ours.items():
        np.testing.assert_allclose(theirs[key], weight, rtol=1e-3, atol=1e-5)


def test_a_run_of_two_processes_goes_on_where_it_stopped(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    whole, part = (make_config({"out": str(tmp_path / n)}) for n in ("whole", "part"))
    train_in_two(whole, tmp_path)
    train_in_two(part, tmp_path, "--max-minutes", "0")
    ended = train_in_two(part, tmp_path, "--resume")
    assert [process.code for process in ended] == [0, 0], ended[0].output
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        path = f"checkpoints/step-00000018/{name}"
        assert (Path(part.out) / path).read_bytes() == (Path(whole.out) / path).read_bytes()


def test_a_batch_that_two_processes_cannot_share_is_refused_by_both(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    ended = train_in_two(make_config({"batch.sequences": 3}), tmp_path)
    for process in ended:
        assert process.code == 4
        assert "batch.sequences = 3 cannot be shared evenly among 2 processes" in process.output
