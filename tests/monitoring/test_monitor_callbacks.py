"""The callbacks: transformers' Trainer as it is, Lightning by its published hooks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import rankscope as rs
from tests.monitoring.training import WIDTH, adamw, backward, singular_values, small

pytestmark = pytest.mark.usefixtures("here")


class ForTrainer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = small(layers=1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.inner(x) - labels).square().mean()}


@pytest.mark.slow
def test_in_transformers(tmp_path: Path) -> None:
    """Equal to the Trainer's own checkpoints; gradients are there, clipped and accumulated."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model = ForTrainer()
    norms: list[float] = []

    class Before(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *args: object, **_: object) -> None:
            norms.append(sum(p.grad.square().sum() for p in model.parameters()).sqrt().item())

    monitor = rs.Monitor(
        model, tmp_path / "live", every=2, share=None, components="weight,gradient", run="run"
    )
    data = [{"x": torch.randn(WIDTH), "labels": torch.zeros(WIDTH)} for _ in range(16)]
    arguments = transformers.TrainingArguments(
        str(tmp_path / "run"), max_steps=4, per_device_train_batch_size=2, save_steps=2,
        gradient_accumulation_steps=2, max_grad_norm=0.05, report_to=[], disable_tqdm=True,
        use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, callbacks=[Before(), rs.MonitorCallback(monitor)]
    )
    trainer.train()
    live = rs.open_results(tmp_path / "live").metrics
    weights = live[live["component"] == "weight"]
    disk = rs.analyze(tmp_path / "run", components="weight", jobs=1)
    both = weights[weights["step"] > 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, disk, check_exact=True)
    gradients = live[live["component"] == "gradient"].groupby("step")["frobenius_norm"]
    totals = gradients.agg(lambda norms: np.sqrt((norms**2).sum()))
    assert totals.to_dict() == pytest.approx({2: norms[1], 4: norms[3]}, rel=1e-5)
    assert norms[1] == pytest.approx(0.05, rel=1e-3)


def lightning_loop(callback: rs.LightningMonitorCallback, model: torch.nn.Module) -> None:
    """Lightning's order: the gradients of a step are reset with the first batch after it."""
    optimizer = adamw(model)
    trainer = SimpleNamespace(global_step=0, is_global_zero=True)
    callback.on_train_start(trainer, model)
    for batch in range(6):
        if batch % 2 == 0:
            optimizer.zero_grad()
        backward(model, batch)
        if batch % 2:
            optimizer.step()
            trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, batch)
    callback.on_train_end(trainer, model)


def test_in_lightning(tmp_path: Path) -> None:
    model = small(layers=1)
    monitor = rs.Monitor(model, tmp_path / "out", every=1, share=None)
    lightning_loop(rs.LightningMonitorCallback(monitor), model)
    results = rs.open_results(tmp_path / "out")
    counts = results.metrics.groupby(["component", "step"]).size().to_dict()
    assert counts == {
        **{("weight", step): 5 for step in range(4)},
        **{(name, step): 5 for step in (1, 2, 3) for name in ("update", "gradient")},
    }
    last = results.spectra("gradient", step=3).groupby("name")["singular_value"]
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            last.get_group(name), singular_values(parameter.grad), rtol=1e-6, atol=1e-9
        )


@pytest.mark.slow
def test_it_is_a_callback_of_lightning_where_that_is_installed(tmp_path: Path) -> None:
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text("")
    (tmp_path / "lightning" / "pytorch.py").write_text("class Callback: pass")
    program = (
        "import rankscope as rs; from lightning.pytorch import Callback; "
        "assert issubclass(rs.LightningMonitorCallback, Callback)"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {program}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_first_process_measures(tmp_path: Path) -> None:
    model = small(layers=1)
    monitor = rs.Monitor(model, tmp_path / "out", every=1)
    callback = rs.LightningMonitorCallback(monitor)
    callback.on_train_start(SimpleNamespace(global_step=0, is_global_zero=False), model)
    callback.on_exception(None, model, RuntimeError())
    assert not (tmp_path / "out" / "metrics.parquet").exists()
