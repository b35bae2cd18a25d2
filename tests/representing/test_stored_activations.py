"""Activations of pico-train, in files as its program writes them, are read without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.representations.feature_sums import FeatureSums
from rankscope.representing.stored_activations import stored_features
from tests.conftest import write_model

MODULES = {"attention.v_proj": 8, "attention.o_proj": 12, "swiglu.w_2": 12}
SAMPLES, LAYERS = 64, 2
Stored = dict[str, torch.Tensor]


def activations(seed: int, dtype: torch.dtype = torch.float32) -> Stored:
    """Outputs (samples, dimensions) by the name of the module within Fabric's wrapper."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"_forward_module.layers.{layer}.{module}": torch.randn(
            SAMPLES, width, generator=generator
        ).to(dtype)
        for layer in range(LAYERS)
        for module, width in MODULES.items()
    }


def write_step(run: Path, step: int, stored: Any, name: str = "train_activations.pt") -> Path:
    folder = run / "checkpoints" / f"step_{step}"
    weight = {"pico_decoder.layers.0.attention.v_proj.weight": np.ones((8, 12), np.float32)}
    write_model(folder, weight, config={"model_type": "pico_decoder"})
    (folder / "learning_dynamics").mkdir(exist_ok=True)
    path = folder / "learning_dynamics" / name
    torch.save(stored, path)
    return path


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.bfloat16, 8)])
def test_every_array_is_read_as_it_was_written(
    dtype: torch.dtype, bits: int, tmp_path: Path
) -> None:
    stored = activations(1, dtype)
    found = list(stored_features(write_step(tmp_path, 0, stored), kept=20))
    names = {"attention": "attention.o_proj", "mlp": "swiglu.w_2"}
    assert [(one.place.layer, one.place.at) for one, _ in found] == [
        (layer, at) for layer in range(LAYERS) for at in ("attention", "attention.v_proj", "mlp")
    ]
    for one, its_bits in found:
        module = names.get(one.place.at, one.place.at)
        x = stored[f"_forward_module.layers.{one.place.layer}.{module}"].double().numpy()
        assert its_bits == bits
        total = sum(one.sums, FeatureSums.empty(x.shape[1]))
        assert total.count == SAMPLES
        np.testing.assert_allclose(total.scatter, SAMPLES * np.cov(x.T, bias=True), atol=1e-10)
        np.testing.assert_array_equal(one.kept, x[np.arange(20) * SAMPLES // 20])


def test_a_run_is_followed_from_step_to_step(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (0, 100):
        write_step(run, step, activations(step))
        write_step(run, step, activations(step + 1), "val_activations.pt")
    table = rs.represent(run, out=out, compare="last,layers")
    assert set(table["text"]) == {"stored-train", "stored-val"}
    assert set(table["features"]) == {"last"}
    assert len(table) == 2 * 2 * LAYERS * len(MODULES)
    assert set(table["status"]) == {"ok"}
    first = table.query("step == 0 and text == 'stored-train' and layer == 0 and at == 'mlp'")
    s = np.linalg.svd(activations(0)["_forward_module.layers.0.swiglu.w_2"], compute_uv=False)
    p = s / s.sum()
    assert first["rankme"].item() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
    pairs = rs.open_results(out).similarities
    layers = pairs[pairs["comparison"] == "layers"]
    assert (layers["at"] == layers["against_at"]).all()
    assert len(layers) == 2 * 2 * len(MODULES)
    found = CliRunner().invoke(app, ["represent", str(run), "--out", str(out)])
    assert found.exit_code == 0, found.output
    assert "stored-train, last tokens, last mlp" in found.stdout


def test_a_damaged_file_costs_itself(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (0, 100):
        path = write_step(run, step, activations(step))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.warns(RankscopeWarning, match=r"step_100.*train_activations\.pt"):
        table = rs.represent(run)
    assert set(table["step"]) == {0}


@pytest.mark.parametrize(
    "stored", [{}, {"layers.0.attention.v_proj": torch.zeros(3)}, {"norm": torch.zeros(3, 4)}]
)
def test_a_file_without_activations_is_named(stored: Stored, tmp_path: Path) -> None:
    write_step(tmp_path / "run", 0, stored)
    with pytest.raises(RankscopeError, match=r"_activations\.pt: (holds no a|does not hold)"):
        rs.represent(tmp_path / "run")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    write_step(tmp_path / "run", 0, activations(0) | {"layers.9.bomb": Bomb()})
    table = rs.represent(tmp_path / "run")
    assert len(table) == LAYERS * len(MODULES)
    assert not (tmp_path / "ran").exists()
    assert json.loads(table.to_json())
