import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.adapters.peft_config import scale_of
from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.options import DEFAULT
from rankscope.errors import RankscopeError
from tests.conftest import (
    CONFIG,
    HEADS,
    KV_HEADS,
    MODULES,
    WIDTH,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)


def write_shards(folder: Path, tensors: dict[str, np.ndarray], count: int) -> dict[str, str]:
    """Write a sharded model and return its weight map."""
    names = sorted(tensors)
    weight_map = {}
    for i in range(count):
        shard = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::count]}
        save_file(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return weight_map


def test_every_matrix_is_found_with_its_place(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    write_model(tmp_path, weights)
    contents = huggingface.read(tmp_path, DEFAULT)
    assert set(contents.parameters) == {name for name, w in weights.items() if w.ndim == 2}
    down = contents.parameters["model.layers.1.mlp.down_proj.weight"]
    assert (down.layer, down.role, down.expert) == (1, "down", None)
    assert contents.parameters["lm_head.weight"].role == "unembed"
    assert contents.heads is not None
    assert (contents.heads.count, contents.heads.kv_count) == (HEADS, KV_HEADS)
    assert contents.heads.size == WIDTH // HEADS
    for name, parameter in contents.parameters.items():
        assert parameter.tensor is not None
        assert (parameter.tensor.read() == weights[name]).all()


def test_shards_read_like_one_file(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    write_shards(tmp_path, weights, 3)
    found = huggingface.open_weights(tmp_path)
    assert set(found) == set(weights)
    assert all((tensor.read() == weights[name]).all() for name, tensor in found.items())


def test_a_whole_file_serves_in_place_of_a_missing_shard(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = random_weights(rng)
    write_shards(tmp_path, weights, 2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(RankscopeError, match="model-00002-of-00002"):
        huggingface.read(tmp_path, DEFAULT)
    write_model(tmp_path, weights)
    assert set(huggingface.open_weights(tmp_path)) == set(weights)


@pytest.mark.parametrize("shard", ["../outside.safetensors", "/etc/passwd", "..", "", "x" * 5000])
def test_an_index_cannot_point_outside_its_folder(
    shard: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(RankscopeError, match="not a file beside it"):
        huggingface.read(tmp_path, DEFAULT)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    weight_map = write_shards(tmp_path, random_weights(rng), 2)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": weight_map | {"ghost": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(RankscopeError, match="'ghost': is not in model-00001"):
        huggingface.read(tmp_path, DEFAULT)


def test_prefixes_of_wrappers_do_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    write_model(tmp_path, {f"module._orig_mod.{name}": w for name, w in weights.items()})
    assert (
        "model.layers.0.self_attn.q_proj.weight" in huggingface.read(tmp_path, DEFAULT).parameters
    )


def test_unknown_names_are_other_and_quantised_ones_are_reported(tmp_path: Path) -> None:
    tensors = {
        "model.layers.0.mixer.in_proj.weight": np.ones((4, 4), np.float32),
        "model.layers.0.mlp.up_proj.weight": np.ones((4, 4), np.int8),
        "model.layers.0.mlp.gate.weight": np.ones((2, 4), np.float32),
        "model.layers.0.mlp.experts.7.up_proj.weight": np.ones((4, 4), np.float32),
    }
    write_model(tmp_path, tensors, config={})
    contents = huggingface.read(tmp_path, DEFAULT)
    roles = {name: (p.role, p.expert) for name, p in contents.parameters.items()}
    assert roles == {
        "model.layers.0.mixer.in_proj.weight": ("other", None),
        "model.layers.0.mlp.gate.weight": ("router", None),
        "model.layers.0.mlp.experts.7.up_proj.weight": ("up", 7),
    }
    assert [skip.reason for skip in contents.skips] == ["quantised"]
    assert contents.heads is None


def test_an_adapter_in_the_checkpoint_belongs_to_its_weights(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    factors = random_factors(rng)
    write_model(tmp_path, random_weights(rng))
    write_adapter(tmp_path / "adapter", factors, scale=0.5)
    contents = huggingface.read(tmp_path, DEFAULT)
    for module, (left, right) in factors.items():
        adapter = contents.parameters[f"{module}.weight"].adapter
        assert adapter is not None and adapter.scale == 0.5
        assert (adapter.lora_B.read() == left).all() and (adapter.lora_A.read() == right).all()


def test_an_adapter_is_read_with_and_without_its_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_adapter(tmp_path / "alone", random_factors(rng), scale=1.0)
    alone = peft.read(tmp_path / "alone", DEFAULT).parameters
    assert all(p.tensor is None and p.adapter is not None for p in alone.values())
    write_model(tmp_path / "base", random_weights(rng))
    config = json.loads((tmp_path / "alone" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../base"
    (tmp_path / "alone" / "adapter_config.json").write_text(json.dumps(config))
    joined = peft.read(tmp_path / "alone", DEFAULT).parameters
    assert {name for name, p in joined.items() if p.adapter} == set(alone)
    assert all(p.tensor is not None for p in joined.values())


def test_factors_that_do_not_fit_are_reported_and_the_rest_is_read(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    factors = random_factors(rng)
    first, second, third = list(MODULES)[:3]
    factors[first] = (factors[first][0][:-1], factors[first][1])
    write_model(tmp_path, random_weights(rng))
    write_adapter(tmp_path / "adapter", factors, scale=1.0)
    from safetensors.numpy import load_file

    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[f"base_model.model.{second}.lora_B.weight"]
    tensors[f"base_model.model.{third}.lora_magnitude_vector"] = np.ones(4, np.float32)
    save_file(tensors, path)
    contents = huggingface.read(tmp_path, DEFAULT)
    assert {(s.tensor, s.reason) for s in contents.skips} == {
        (first, "adapter-misfit"),
        (second, "adapter-incomplete"),
        (third, "adapter-incomplete"),  # its magnitudes are not as many as its rows
    }
    assert sum(p.adapter is not None for p in contents.parameters.values()) == len(MODULES) - 3


def test_adapters_of_other_types_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(RankscopeError, match="of type IA3"):
        peft.read(tmp_path, DEFAULT)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"q_proj": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"k_proj": 2}}, 2.0),
        ({"lora_alpha": 8, "alpha_pattern": {r"model\.layers\.0\..*": 1}}, 0.25),
    ],
)
def test_the_scale_follows_the_config(config: dict[str, object], scale: float) -> None:
    assert scale_of(config, "model.layers.0.self_attn.q_proj", rank=4) == scale
