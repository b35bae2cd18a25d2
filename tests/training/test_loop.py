from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rankscope.durable import damage
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.config import Config
from rankscope.training.data.corpus import load_corpus
from rankscope.training.initial_model import initial_model
from rankscope.training.loop import Trainer
from rankscope.training.model import LanguageModel
from rankscope.training.probe import Probe
from rankscope.training.run_folder import state
from rankscope.training.run_folder.trained_model import trained_model
from rankscope.training.schedule import timeline
from rankscope.training.train import train
from tests.conftest import CHANGES, dead_mark

MakeConfig = Callable[..., Config]
ReadLog = Callable[[Path], list[dict[str, Any]]]
KillAt = Callable[[int], AbstractContextManager[list[str]]]
FULL = {"method": "full", "schedule.restart_every": 0}
LORA = {"method": "lora", "schedule.restart_every": 0}
SAVE_ALWAYS = {"log.save_every": 1, "log.eval_every": 4}
CLOCKS = ("time", "tokens_per_second")


def results(run: str | Path) -> dict[str, bytes]:
    """Every file that must not depend on whether a run was interrupted."""
    files = [p for part in ("checkpoints", "merges") for p in (Path(run) / part).rglob("*")]
    files += list(next(state.iter_states(Path(run))).glob("*.safetensors"))
    return {str(p.relative_to(run)): p.read_bytes() for p in files if p.is_file()}


def entries(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in CLOCKS} for entry in log]


def interrupt(monkeypatch: pytest.MonkeyPatch, *, step: int, number: int) -> None:
    """Let a signal arrive in the middle of the update of a step."""
    real_update = Trainer.update

    def update(self: Trainer, now: int) -> None:
        if now == step:
            signal.raise_signal(number)
        real_update(self, now)

    monkeypatch.setattr(Trainer, "update", update)


@pytest.mark.parametrize("method", [{}, FULL, LORA])
@pytest.mark.slow
def test_training_lowers_the_loss(
    make_config: MakeConfig, read_log: ReadLog, method: dict[str, Any]
) -> None:
    config = make_config({"schedule.steps": 60, "schedule.learning_rate": 0.02, **method})
    outcome = train(config)
    losses = [e["validation_loss"] for e in read_log(Path(config.out)) if "validation_loss" in e]
    assert (outcome.step, outcome.ending) == (60, "complete")
    assert losses[0] == pytest.approx(np.log(31), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]
    assert f"{losses[-1]:.4f}" in outcome.message


@pytest.mark.slow
def test_the_same_run_twice_is_the_same_to_the_last_bit(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    train(make_config({"out": str(tmp_path / "one")}))
    torch.manual_seed(123)
    train(make_config({"out": str(tmp_path / "two")}))
    assert results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.slow
def test_both_arms_see_the_same_text_from_the_same_weights(
    make_config: MakeConfig, read_log: ReadLog, tmp_path: Path
) -> None:
    for method in (FULL, {}, LORA):
        train(make_config({"out": str(tmp_path / str(method.get("method"))), **method}))
    firsts = [read_log(run)[:2] for run in sorted(tmp_path.iterdir())]
    assert len({entry[0]["validation_loss"] for entry in firsts}) == 1
    assert len({entry[1]["loss"] for entry in firsts}) == 1


@pytest.mark.slow
def test_a_restart_is_logged_with_equal_losses_before_and_after(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config()
    train(config)
    restarts = [e for e in read_log(Path(config.out)) if e.get("event") == "restart"]
    assert [(e["step"], e["restart"]) for e in restarts] == [(5, 1), (10, 2), (15, 3)]
    for entry in restarts:
        assert entry["loss_before"] == pytest.approx(entry["loss_after"], abs=1e-5)


def test_every_update_is_logged_with_what_was_used(
    make_config: MakeConfig, read_log: ReadLog
) -> None:
    config = make_config()
    train(config)
    updates = [e for e in read_log(Path(config.out)) if "loss" in e]
    assert [e["step"] for e in updates] == list(range(18))
    assert [e["tokens"] for e in updates] == [48 * t for t in range(18)]
    assert all(e["learning_rate"] > 0 and e["grad_norm"] > 0 for e in updates)
    assert all(set(CLOCKS) <= e.keys() for e in updates)


def test_adam_counts_cycles_for_adapters_and_the_run_otherwise(
    make_config: MakeConfig,
) -> None:
    config = make_config()
    train(config)
    steps = json.loads((Path(config.out) / "state/step-00000018/state.json").read_bytes())
    for name, step in steps["adam_steps"].items():
        assert step == (3 if ".lora_" in name else 18), name


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_whole_batch(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    train(make_config({"out": str(tmp_path / "whole")}))
    train(make_config({"out": str(tmp_path / "parts"), "batch.micro_sequences": 1}))
    name = "checkpoints/step-00000006/gradients.safetensors"
    whole, parts = load_file(tmp_path / "whole" / name), load_file(tmp_path / "parts" / name)
    for key in whole:
        np.testing.assert_allclose(whole[key], parts[key], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ({}, (0, 1, 4, 5, 6, 9, 10, 11, 15, 16, 17)),  # restarts at 5, 10 and 15
        (FULL, (0, 1, 9, 17)),
        (LORA, (0, 1, 9, 17)),
    ],
)
@pytest.mark.slow
def test_a_run_resumed_at_any_step_ends_equal_to_the_bit(
    make_config: MakeConfig,
    read_log: ReadLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any],
    steps: tuple[int, ...],
) -> None:
    monkeypatch.setattr(state, "KEPT_STATES", 100)
    whole = tmp_path / "whole"
    train(make_config({"out": str(whole), **SAVE_ALWAYS, **method}))
    expected, log = results(whole), entries(read_log(whole))
    for step in steps:
        part = tmp_path / f"part{step}"
        shutil.copytree(whole, part)
        for later in range(step + 1, 19):
            shutil.rmtree(part / "state" / f"step-{later:08d}")
        torch.manual_seed(step)
        outcome = train(make_config({"out": str(part), **SAVE_ALWAYS, **method}), resume=True)
        assert outcome.step == 18
        assert results(part) == expected, step
        assert entries(read_log(part)) == log, step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 4, 5, 11])
@pytest.mark.slow
def test_a_signal_ends_the_step_saves_and_loses_nothing(
    make_config: MakeConfig,
    read_log: ReadLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    number: int,
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(make_config({"out": str(whole)}))
    with monkeypatch.context() as patch:
        interrupt(patch, step=step, number=number)
        outcome = train(make_config({"out": str(part)}))
    assert (outcome.step, outcome.ending) == (step + 1, "interrupted")
    assert outcome.signal == number
    assert "`resume`" in outcome.message
    assert train(make_config({"out": str(part)}), resume=True).ending == "complete"
    assert results(part) == results(whole)
    assert entries(read_log(part)) == entries(read_log(whole))


def test_signals_mean_what_they_meant_once_the_training_is_over(make_config: MakeConfig) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train(make_config())
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.slow
def test_out_of_time_it_saves_and_ends_well(make_config: MakeConfig) -> None:
    outcome = train(make_config(), max_minutes=0.0)
    assert (outcome.step, outcome.ending) == (1, "stopped")
    assert "out of time" in outcome.message
    assert train(make_config(), resume=True).step == 18


def test_a_finished_run_is_left_alone(make_config: MakeConfig) -> None:
    config = make_config()
    train(config)
    before = {p: p.stat().st_mtime_ns for p in Path(config.out).rglob("*")}
    for resume in (False, True):
        outcome = train(config, resume=resume)
        assert outcome.ending == "complete"
        assert "complete" in outcome.message
    assert {p: p.stat().st_mtime_ns for p in Path(config.out).rglob("*")} == before


def test_an_unfinished_run_is_not_overwritten(make_config: MakeConfig) -> None:
    train(make_config(), max_minutes=0.0)
    with pytest.raises(RankscopeError, match="at step 1 of 18: continue it with `resume`"):
        train(make_config())


def test_a_run_is_not_resumed_with_another_configuration(make_config: MakeConfig) -> None:
    train(make_config(), max_minutes=0.0)
    with pytest.raises(RankscopeError) as error:
        train(make_config({"seed": 2, "adapter.rank": 3}), resume=True)
    assert "seed was 1 and is now 2" in str(error.value)
    assert "adapter.rank was 2 and is now 3" in str(error.value)


def test_a_run_is_not_resumed_with_other_data(
    make_config: MakeConfig, token_file: Path, tmp_path: Path
) -> None:
    train(make_config(), max_minutes=0.0)
    moved = tmp_path / "moved.bin"
    moved.write_bytes(token_file.read_bytes())
    train(make_config({"data.source": str(moved)}), resume=True, max_minutes=0.0)
    moved.write_bytes(token_file.read_bytes()[2:])
    with pytest.raises(RankscopeError, match="this run began with other data"):
        train(make_config({"data.source": str(moved)}), resume=True)


def test_resuming_what_was_never_started_starts_it(make_config: MakeConfig) -> None:
    assert train(make_config(), resume=True).step == 18


def test_a_folder_of_other_things_is_not_written_into(make_config: MakeConfig) -> None:
    config = make_config()
    Path(config.out).mkdir()
    (Path(config.out) / "thesis.tex").write_text("")
    with pytest.raises(WrongSettingError, match=r"holds 'thesis\.tex'"):
        train(config)


def test_nothing_is_written_if_the_data_are_missing(make_config: MakeConfig) -> None:
    config = make_config({"data.source": "missing.bin"})
    with pytest.raises(RankscopeError, match=r"missing\.bin"):
        train(config)
    assert not Path(config.out).exists()


@pytest.mark.slow
def test_a_damaged_state_costs_the_steps_since_the_one_before(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(make_config({"out": str(whole)}))
    shutil.copytree(whole, part)
    (part / "state/step-00000018/optimizer.safetensors").write_bytes(b"")
    assert train(make_config({"out": str(part)}), resume=True).step == 18
    assert "step-00000018 is damaged" in capsys.readouterr().err
    assert results(part) == results(whole)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_reaches_neither_optimizer_nor_disk(
    make_config: MakeConfig, read_log: ReadLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = {"optimizer.tolerated_skips": 0}
    config = make_config({"out": str(tmp_path / "part"), **at_once})
    with monkeypatch.context() as patch:
        real_step = torch.optim.AdamW.step
        taken: list[int] = []

        def step(self: torch.optim.AdamW) -> None:
            real_step(self)
            taken.append(1)
            if len(taken) == 8:
                for p in self.param_groups[0]["params"]:
                    p.data.fill_(torch.inf)

        patch.setattr(torch.optim.AdamW, "step", step)
        outcome = train(config)
    assert (outcome.ending, len(taken)) == ("non-finite", 8)
    assert "stopped at step 8: the loss is nan" in outcome.message
    assert read_log(Path(config.out))[-1]["event"] == "non-finite"
    train(config, resume=True)
    train(make_config({"out": str(tmp_path / "whole"), **at_once}))
    assert results(tmp_path / "part") == results(tmp_path / "whole")


@pytest.mark.parametrize("in_a_row", [1, 3, 4])
@pytest.mark.slow
def test_a_few_batches_without_a_finite_loss_are_left_out(
    make_config: MakeConfig, read_log: ReadLog, monkeypatch: pytest.MonkeyPatch, in_a_row: int
) -> None:
    config = make_config()
    real_loss, seen = LanguageModel.loss, list[int]()

    def loss(self: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
        value = real_loss(self, tokens)
        if self.training:  # and not a measurement
            seen.append(1)
        broken = self.training and 4 < len(seen) <= 4 + in_a_row
        return value * torch.nan if broken else value

    monkeypatch.setattr(LanguageModel, "loss", loss)
    outcome = train(config)
    log = read_log(Path(config.out))
    skipped = [e["skipped"] for e in log if e.get("event") == "skipped"]
    assert outcome.ending == ("complete" if in_a_row < 4 else "non-finite")
    assert skipped == list(range(1, min(in_a_row, 3) + 1))
    if in_a_row < 4:  # learning rate and restarts keep their steps
        assert [e["step"] for e in log if e.get("event") == "restart"] == [5, 10, 15]
        monkeypatch.undo()
        expected = timeline(config)
        for entry in log:
            if "learning_rate" in entry:
                assert entry["learning_rate"] == expected.learning_rate(entry["step"])


def test_a_learning_rate_beyond_all_reason_saves_nothing_that_is_not_finite(
    make_config: MakeConfig,
) -> None:
    config = make_config({"schedule.learning_rate": 1e38, "log.save_every": 1})
    assert train(config).ending == "non-finite"
    for path in Path(config.out).rglob("*.safetensors"):
        assert all(np.isfinite(tensor).all() for tensor in load_file(path).values()), path


@pytest.mark.parametrize("writes", [15, 25, 60])
@pytest.mark.slow
def test_a_full_disk_ends_the_run_so_that_it_can_go_on(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    config = make_config({"out": str(tmp_path / "part")})
    train(make_config({"out": str(tmp_path / "whole")}))
    train(config, max_minutes=0.0)
    real_write, left = os.write, [writes]

    def write(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        outcome = train(config, resume=True)
    assert outcome.ending == "unwritable"
    assert "No space left on device" in outcome.message
    assert not list(Path(config.out).rglob(".tmp-*"))
    assert train(config, resume=True).step == 18
    assert results(tmp_path / "part") == results(tmp_path / "whole")


def test_a_file_is_not_taken_for_a_folder(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RankscopeError, match="file: is a file: `out` must be a folder"):
        train(make_config({"out": str(tmp_path / "file")}))
    with pytest.raises(WrongSettingError, match="file: is a file: `out` must be a folder"):
        train(make_config({"out": str(tmp_path / "file" / "run")}))


@pytest.mark.slow
def test_a_run_killed_while_it_writes_resumes_equal(
    make_config: MakeConfig, read_log: ReadLog, tmp_path: Path, kill_at: KillAt
) -> None:
    """Before all that others see, and every seventh change; a week tries each of them."""
    short = {
        "schedule.steps": 5,
        "schedule.restart_every": 2,
        "log.save_every": 4,
        "log.save_before_restarts": False,
    }
    whole, part = tmp_path / "whole", tmp_path / "part"
    train(make_config({"out": str(whole), **short}))
    with noted_changes() as changes:  # of a second run: the first also writes the text's tokens
        train(make_config({"out": str(part), **short}))
    shutil.rmtree(part)
    expected, log = results(whole), entries(read_log(whole))
    seen = {n for n, name in enumerate(changes) if name not in ("write", "fsync", "mkdir")}
    for n in sorted(seen | set(range(date.today().toordinal() % 7, len(changes), 7))):
        with kill_at(n) as killed:
            train(make_config({"out": str(part), **short}))
        assert killed[0] == changes[n]
        assert all(damage(folder) is None for folder in part.glob("*/step-*/"))
        train(make_config({"out": str(part), **short}), resume=True)
        assert results(part) == expected, n
        assert entries(read_log(part)) == log, n
        shutil.rmtree(part)
    assert len(seen) > 15


@contextmanager
def noted_changes() -> Iterator[list[str]]:
    """Note every change to the file system that `kill_at` can die before."""
    changes: list[str] = []
    own = threading.get_ident()
    gc.collect()  # as before it kills

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **settings: Any) -> Any:
            if threading.get_ident() == own:
                changes.append(name)
            return function(*args, **settings)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, noting(name, getattr(os, name)))
        yield changes


def test_half_written_merges_of_a_dead_process_are_swept(make_config: MakeConfig) -> None:
    config = make_config({"schedule.steps": 12})
    merges = Path(config.out) / "merges"
    train(config, max_minutes=0)
    merges.mkdir(exist_ok=True)
    (merges / f".tmp-step-00000005.safetensors-{dead_mark()}-0").write_bytes(b"half")
    train(config, resume=True)
    assert [path.name for path in sorted(merges.iterdir())] == [
        "MANIFEST.json",
        *(f"step-{step:08d}.safetensors" for step in (5, 10)),
    ]


def test_the_last_checkpoint_states_the_rate_of_the_last_update(make_config: MakeConfig) -> None:
    config = make_config({"schedule.steps": 12, "schedule.restart_every": 4})
    train(config)
    folder = Path(config.out) / "checkpoints" / "step-00000012"
    stated = json.loads((folder / "state.json").read_text())["learning_rate"]
    assert stated == timeline(config, first_phase_end=None).learning_rate(11)


def test_the_probes_of_two_cycles_are_other_sequences(make_config: MakeConfig) -> None:
    config = make_config()
    corpus = load_corpus(config.data, config.batch)
    measured = Probe(config, corpus, initial_model(config, corpus.vocab_size))
    one, again, other = (measured.cycle_gradients(cycle) for cycle in (1, 1, 2))
    name = next(iter(one))
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])


def test_a_trained_model_is_opened_for_evaluation(make_config: MakeConfig) -> None:
    config = make_config({"schedule.steps": 4, "log.save_every": 2})
    train(config)
    model = trained_model(Path(config.out) / "checkpoints" / "step-00000002")
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("every", "saved"), [(5, [0, 5, 10, 15, 18]), (4, [0, 4, 6, 8, 11, 12, 16])]
)
@pytest.mark.slow
def test_nothing_is_saved_twice_around_an_update_of_rate_zero(
    make_config: MakeConfig, every: int, saved: list[int]
) -> None:
    """The published schedule restarts one step after a multiple, whose update has rate 0."""
    published = {"relora.published.zero_rate_step": True, "log.save_every": every}
    config = make_config(published)
    train(config)
    steps = [int(path.name[5:]) for path in sorted((Path(config.out) / "checkpoints").iterdir())]
    assert steps == sorted({*saved, 18})
