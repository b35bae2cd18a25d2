"""The callbacks, in the trainers themselves and in a stub of the one that is heavy."""

from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from rankscope import analyze, relora
from rankscope.checkpoints.discovery import open_run
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.relora.adapted_model import adapted, factors_of, wrapping
from tests.relora.models import VOCABULARY, loss_of, made

EVERY = 3


class Sequences(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (torch.arange(9) * (index + 1) + index) % VOCABULARY
        return {"input_ids": ids, "labels": ids}


def trainer(
    folder: Path, *, steps: int = 10, save_steps: int = 100, accumulate: int = 1
) -> Trainer:
    model = relora.wrap(made("gpt2"), rank=2, alpha=4, seed=1)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        max_steps=steps,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulate,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        save_steps=save_steps,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    callback = relora.ReLoRACallback(every=EVERY, save=folder / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Trainer(model, arguments, train_dataset=Sequences(), callbacks=[callback])


def names(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("step-*"))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainer_restarts_and_leaves_a_run(tmp_path: Path, accumulate: int) -> None:
    one = trainer(tmp_path, accumulate=accumulate)
    one.train()
    kept = wrapping(one.model)
    assert (kept.cycle, kept.restarts, kept.merged) == (3, 3, 9)
    saved = [f"step-{step:08d}" for step in (0, 3, 6, 9, 10)]
    assert names(tmp_path / "run/checkpoints") == saved
    assert names(tmp_path / "run/merges") == [f"{name}.safetensors" for name in saved[1:4]]
    run = open_run(tmp_path / "run")
    assert [c.step for c in run] == [0, 3, 6, 9, 10] and len(run.merge_files) == 3
    live = {f for layer in adapted(one.model).values() for f in factors_of(layer)[:2]}
    state = one.optimizer.optimizer.state
    assert all(state[f]["step"] == 1 for f in live)  # one update since the last restart
    assert max(int(s["step"]) for s in state.values()) == 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_training_that_is_resumed_has_its_merged_weights(tmp_path: Path) -> None:
    """Cut after step 8 and resumed from 7: as one that was never cut."""
    whole = trainer(tmp_path / "whole", save_steps=7)
    whole.train()
    cut = trainer(tmp_path / "cut", save_steps=7)
    cut.args.max_steps = 8
    cut.train()
    again = trainer(tmp_path / "cut", save_steps=7)
    again.train(resume_from_checkpoint=str(tmp_path / "cut/trainer/checkpoint-7"))
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    kept = wrapping(again.model)
    assert (kept.cycle, kept.restarts) == (3, 3)
    state = tmp_path / "cut/trainer/checkpoint-7/base/state.json"
    assert json.loads(state.read_text())["restarts"] == 2
    for said in (b"{}", None):
        state.write_bytes(said) if said else state.unlink()
        with pytest.raises(RankscopeError, match="does not say how often the adapters were"):
            third = trainer(tmp_path / "cut", save_steps=7)
            third.train(resume_from_checkpoint=str(tmp_path / "cut/trainer/checkpoint-7"))
    (tmp_path / "cut/trainer/checkpoint-7/base/model.safetensors").unlink()
    with pytest.raises(RankscopeError, match="is missing, so the weights"):
        third = trainer(tmp_path / "cut", save_steps=7)
        third.train(resume_from_checkpoint=str(tmp_path / "cut/trainer/checkpoint-7"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_trainers_own_folder_counts_its_restarts(tmp_path: Path) -> None:
    """Steps 2, 4, 6, 8 and 10, with restarts at 3, 6 and 9: a checkpoint is from after them."""
    trainer(tmp_path, save_steps=2).train()
    table = analyze(tmp_path / "trainer", components="update", out=tmp_path / "out", jobs=1)
    rows = table[table["layer"].notna()].groupby("step")
    assert rows["restarts"].first().to_dict() == {4: 1, 6: 1, 8: 0, 10: 1}
    assert rows["window"].first().to_dict() == {
        4: "across", 6: "across", 8: "within", 10: "across"
    }  # fmt: skip


class Callback:
    """What `lightning.pytorch.Callback` is: a class with a hook for each event."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None: ...
    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None: ...
    def on_train_end(self, trainer: Any, pl_module: Any) -> None: ...


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lightning.pytorch")
    module.Callback = Callback  # type: ignore[attr-defined]
    package = types.ModuleType("lightning")
    package.pytorch = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightning", package)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    monkeypatch.delitem(sys.modules, "rankscope.relora.lightning_callback", raising=False)


@pytest.mark.usefixtures("stub")
def test_lightnings_hooks_restart_once_a_step(tmp_path: Path) -> None:
    """The trainer's interface: two batches a step, as with accumulated gradients."""
    model = nn.ModuleDict({"model": relora.wrap(made("perceptron"), rank=2)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    trainer = types.SimpleNamespace(
        global_step=0, optimizers=[optimizer], estimated_stepping_batches=9
    )
    callback = relora.LightningReLoRACallback(every=EVERY, save=tmp_path / "run")
    callback.on_train_start(trainer, model)
    for batch in range(18):
        loss_of(model["model"]).backward()
        if batch % 2:
            optimizer.step()
            optimizer.zero_grad()
            trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, batch)
        if trainer.global_step == 4:  # before the next checkpoint: a resumed trainer has it too
            assert names(tmp_path / "run/merges") == ["step-00000003.safetensors"]
    callback.on_train_end(trainer, model)
    assert wrapping(model["model"]).restarts == 2  # at 3 and 6, and not at the end
    assert names(tmp_path / "run/checkpoints") == [f"step-{s:08d}" for s in (0, 3, 6, 9)]
    trainer.optimizers = [optimizer, optimizer]
    with pytest.raises(WrongSettingError, match="2 optimizers"):
        callback.on_train_start(trainer, model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightning_itself_restarts_and_resumes(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    sys.modules.pop("rankscope.relora.lightning_callback", None)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = relora.wrap(made("perceptron"), rank=2, seed=1)

        def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
            return loss_of(self.model)  # whatever the batch: its loader forgets its place

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=0.02)

    def fit(steps: int, folder: Path, resume: str | None = None) -> nn.Module:
        module = Module()
        callback = relora.LightningReLoRACallback(every=EVERY, save=folder / "run")
        trainer = lightning.Trainer(
            max_steps=steps,
            callbacks=[callback],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data = DataLoader(Sequences(), batch_size=2)
        trainer.fit(module, data, ckpt_path=resume)
        trainer.save_checkpoint(folder / "last.ckpt")
        return module

    whole = fit(8, tmp_path / "whole")
    assert names(tmp_path / "whole/run/checkpoints") == [f"step-{s:08d}" for s in (0, 3, 6, 8)]
    assert wrapping(whole.model).restarts == 2  # type: ignore[arg-type]
    fit(7, tmp_path / "cut")
    again = fit(8, tmp_path / "cut", resume=str(tmp_path / "cut/last.ckpt"))
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "rankscope.relora.trainer_callback", raising=False)
    with pytest.raises(WrongSettingError, match=r"needs transformers.*\[transformers\]"):
        _ = relora.ReLoRACallback
    with pytest.raises(AttributeError):
        _ = relora.nothing  # type: ignore[attr-defined]
    assert set(relora.__all__) <= set(dir(relora))


def test_the_state_says_what_the_record_says(tmp_path: Path) -> None:
    model = relora.wrap(made("perceptron"), rank=2)
    relora.save(model, tmp_path, 0)
    state = json.loads((tmp_path / "checkpoints/step-00000000/state.json").read_text())
    assert state == {"step": 0, "cycle": 0, "restarts": 0, "seed": 0, "frozen": "targets"}
