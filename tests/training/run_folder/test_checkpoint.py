from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM

from rankscope.durable import damage
from rankscope.errors import RankscopeError
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.config import Config
from rankscope.training.initial_model import initial_model
from rankscope.training.model import LanguageModel
from rankscope.training.run_folder.state import load_state
from rankscope.training.run_folder.trained_model import trained_model
from rankscope.training.train import train

MakeConfig = Callable[..., Config]
FULL = {"method": "full", "schedule.restart_every": 0}
STABLE = {"adapter.rank_stabilised": True, "adapter.target_modules": ["q_proj", "up_proj"]}
ADAPTIVE = {"adapter.rank_stabilised": True, "relora.rank_policy": "budget"}


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(31, (3, 12), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def run(make_config: MakeConfig) -> Path:
    config = make_config()
    train(config)
    return Path(config.out)


def checkpoint(run: str | Path, step: int) -> Path:
    return Path(run) / "checkpoints" / f"step-{step:08d}"


def as_trained(config: Config) -> LanguageModel:
    """The model as the loop had it at the end: parameters from its state, scale from its config."""
    model = initial_model(config, 31)
    optimizer = torch.optim.AdamW(model.parameters())
    load_state(Path(config.out) / "state/step-00000018", model, optimizer, Cycles(config))
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("overrides", [{}, STABLE, ADAPTIVE])
@pytest.mark.slow
def test_transformers_and_peft_compute_what_was_trained(
    make_config: MakeConfig, ids: torch.Tensor, overrides: dict[str, object]
) -> None:
    config = make_config({"schedule.learning_rate": 0.05, **overrides})
    train(config)
    folder = checkpoint(config.out, 18)
    base = LlamaForCausalLM.from_pretrained(folder)
    model = PeftModel.from_pretrained(base, folder / "adapter")
    with torch.no_grad():
        logits = as_trained(config)(ids)
        torch.testing.assert_close(model(ids).logits, logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(trained_model(folder)(ids), logits, rtol=1e-5, atol=1e-5)
        with model.disable_adapter():
            assert (model(ids).logits - logits).abs().max() > 1e-3


def test_transformers_computes_what_full_rank_training_trained(
    make_config: MakeConfig, ids: torch.Tensor
) -> None:
    config = make_config(FULL)
    train(config)
    folder = checkpoint(config.out, 18)
    with torch.no_grad():
        logits = as_trained(config)(ids)
        reference = LlamaForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(reference(ids).logits, logits, rtol=1e-5, atol=1e-5)
        assert torch.equal(trained_model(folder)(ids), logits)
    assert not (folder / "adapter").exists()


@pytest.mark.slow
def test_frozen_weights_and_live_adapter_are_stored_separately(
    run: Path,
) -> None:
    folder = checkpoint(run, 6)
    weights = load_file(folder / "model.safetensors")
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert not [name for name in weights if "lora" in name]
    assert "lm_head.weight" in weights
    name = "base_model.model.model.layers.1.mlp.down_proj"
    assert adapter[f"{name}.lora_A.weight"].shape == (2, 24)
    assert adapter[f"{name}.lora_B.weight"].shape == (16, 2)
    assert len(adapter) == 2 * 2 * 7


@pytest.mark.slow
def test_gradients_have_the_names_and_shapes_of_the_weights(run: Path) -> None:
    gradients = load_file(checkpoint(run, 12) / "gradients.safetensors")
    weights = load_file(checkpoint(run, 12) / "model.safetensors")
    assert set(gradients) == {name for name in weights if name.endswith("_proj.weight")}
    for name, gradient in gradients.items():
        assert gradient.shape == weights[name].shape
        assert gradient.dtype == np.float32
        assert np.linalg.norm(gradient) > 0


def test_the_state_says_where_the_run_was(run: Path) -> None:
    steps = sorted(int(p.name[-8:]) for p in (run / "checkpoints").iterdir())
    assert steps == [0, 5, 6, 10, 12, 15, 18]
    for step, restarts in zip(steps, [0, 0, 1, 1, 2, 2, 3], strict=True):
        state = json.loads((checkpoint(run, step) / "state.json").read_bytes())
        assert (state["step"], state["restarts"]) == (step, restarts)
        assert (state["tokens"], state["seed"], state["method"]) == (step * 48, 1, "relora")
        assert ("validation_loss" in state) == (step % 6 == 0)


@pytest.mark.slow
def test_every_file_of_a_checkpoint_is_in_its_manifest(run: Path) -> None:
    folder = checkpoint(run, 12)
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {"MANIFEST.json"}
    assert manifest["format"] == "rankscope-checkpoint-1"
    assert damage(folder) is None


def test_a_merge_record_holds_the_factors_the_scale_and_the_step(run: Path) -> None:
    files = sorted((run / "merges").glob("*.safetensors"))
    assert [p.name for p in files] == [f"step-{t:08d}.safetensors" for t in (5, 10, 15)]
    with safe_open(files[1], "np") as file:
        assert file.metadata() == {"format": "pt", "step": "10", "restart": "2"}
    record = load_file(files[1])
    name = "model.layers.0.self_attn.k_proj"
    assert record[f"{name}.lora_A"].shape == (2, 16)
    assert record[f"{name}.lora_B"].shape == (8, 2)
    assert record[f"{name}.scale"].dtype == np.float64
    assert record[f"{name}.scale"].tolist() == [1.5]


def test_a_merge_record_has_the_scale_that_was_merged(make_config: MakeConfig) -> None:
    config = make_config({"relora.published.merge_without_scale": True, "schedule.steps": 6})
    train(config)
    record = load_file(Path(config.out) / "merges" / "step-00000005.safetensors")
    scales = {float(value[0]) for name, value in record.items() if name.endswith(".scale")}
    assert scales == {1.0}  # while the forward pass has 1.5


@pytest.mark.slow
def test_the_frozen_weights_are_the_first_ones_and_the_recorded_merges(run: Path) -> None:
    weights = load_file(checkpoint(run, 0) / "model.safetensors")
    merges = [load_file(p) for p in sorted((run / "merges").glob("*.safetensors"))]
    for step, done in ((6, 1), (12, 2), (18, 3)):
        now = load_file(checkpoint(run, step) / "model.safetensors")
        for name in (n.removesuffix(".weight") for n in weights if "_proj" in n):
            total = weights[f"{name}.weight"].astype(np.float64)
            for merge in merges[:done]:
                b, a = merge[f"{name}.lora_B"], merge[f"{name}.lora_A"]
                total += merge[f"{name}.scale"] * (b.astype(np.float64) @ a.astype(np.float64))
            np.testing.assert_allclose(now[f"{name}.weight"], total, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "adapter/adapter_config.json"]
)
@pytest.mark.slow
def test_a_checkpoint_without_one_of_its_files_is_refused_by_name(run: Path, name: str) -> None:
    (checkpoint(run, 6) / name).unlink()
    with pytest.raises(RankscopeError, match="step-00000006: is not a complete checkpoint"):
        trained_model(checkpoint(run, 6))
