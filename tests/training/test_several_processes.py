"""The whole trainer in two processes against the same run in one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rankscope.training import loop
from rankscope.training.adapters.published import keyed_dropout
from rankscope.training.config import Config, PublishedConfig
from rankscope.training.config_file import to_toml
from rankscope.training.data.corpus import load_corpus
from rankscope.training.initial_model import initial_model
from rankscope.training.processes import Processes
from rankscope.training.schedule import timeline
from rankscope.training.train import train
from tests.training.several import Ended, run_commands

MakeConfig = Callable[..., Config]
ReadLog = Callable[[Path], list[dict[str, Any]]]
ADAPTIVE = {
    "adapter.rank_stabilised": True,
    "relora.rank_policy": "budget",
    "relora.a_init": "grad_top",
    "batch.micro_sequences": 1,
}


def train_in_two(config: Config, folder: Path, *options: str) -> list[Ended]:
    (folder / "config.toml").write_text(to_toml(config))
    return run_commands("train", str(folder / "config.toml"), *options)


@pytest.mark.parametrize("overrides", [{}, ADAPTIVE], ids=["fixed", "budget"])
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share_is_refused_by_both(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    ended = train_in_two(make_config({"batch.sequences": 3}), tmp_path)
    for process in ended:
        assert process.code == 2
        assert "batch.sequences = 3 cannot be shared evenly among 2 processes" in process.output


def disturb() -> None:
    """Let one process change a weight by itself."""
    update = loop.Trainer.update

    def disturbed(trainer: loop.Trainer, step: int) -> None:
        update(trainer, step)
        if step == 3 and trainer.processes.rank == 1:
            frozen = (p for p in trainer.model.parameters() if not p.requires_grad)
            with torch.no_grad():
                next(frozen).view(-1)[0] += 1e-3

    loop.Trainer.update = disturbed  # type: ignore[method-assign]


@pytest.mark.slow
def test_processes_whose_weights_differ_end_at_the_next_restart(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config()
    (tmp_path / "config.toml").write_text(to_toml(config))
    ended = run_commands("train", str(tmp_path / "config.toml"), before=disturb)
    assert all(process.code not in (0, None) for process in ended)
    assert any("the parameters of step 5" in process.output for process in ended)


def test_every_process_draws_its_own_dropout(
    make_model: Callable[..., torch.nn.Module], tokens: torch.Tensor
) -> None:
    model = make_model({"relora.published.dropout": 0.5})
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.ones_(parameter)
    losses = []
    for rank in (0, 1, 0):
        with keyed_dropout(model, PublishedConfig(dropout=0.5), 1, 7, rank, 0):
            losses.append(model.loss(tokens).item())
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]


def test_the_loop_keys_its_dropout_by_the_process(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []

    def recorded(model: object, published: object, *key: int) -> AbstractContextManager[None]:
        keys.append(key)
        return nullcontext()

    monkeypatch.setattr(loop, "keyed_dropout", recorded)
    config = make_config()
    corpus = load_corpus(config.data, config.batch)
    for rank in (0, 1):
        trainer = object.__new__(loop.Trainer)
        trainer.config, trainer.corpus = config, corpus
        trainer.model = initial_model(config, corpus.vocab_size)
        trainer.processes = replace(Processes(0, 1, torch.device("cpu")), rank=rank)
        monkeypatch.setattr(Processes, "share", lambda self, batch, micro: (batch,))
        trainer.loss, trainer.skipped = trainer.model.loss, 0
        trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
        trainer.timeline = timeline(config, first_phase_end=None)
        monkeypatch.setattr(loop.Trainer, "report", lambda *_: None)
        trainer.update(0)
    assert keys[0] != keys[1]
    assert [key[2] for key in keys] == [0, 1]
