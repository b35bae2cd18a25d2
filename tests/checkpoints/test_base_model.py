"""The base model of an adapter: searched for, given, or reported as missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.adapters.base_model import base_folder
from rankscope.checkpoints.layouts import peft
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError, WrongSettingError
from tests.conftest import random_factors, random_weights, write_adapter, write_model


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache of the hub, and an empty working folder."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


def adapter(folder: Path, rng: np.random.Generator, base: str) -> Path:
    write_adapter(folder, random_factors(rng), scale=2.0)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": base})
    )
    return folder


@pytest.mark.parametrize("place", ["run/checkpoint-5", "run", ".", ".."])
@pytest.mark.parametrize("name", ["base-llama", "./base-llama", "models/base-llama"])
def test_a_relative_path_is_searched_beside_and_above_the_run(
    place: str, name: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    root = tmp_path / "project" / "runs"
    folder = adapter(root / "run" / "checkpoint-5", rng, name)
    write_model(root / place / name, random_weights(rng))
    contents = peft.read(folder, DEFAULT)
    assert contents.base is not None and Path(contents.base).samefile(root / place / name)
    assert contents.base_named == name and not contents.notes and not contents.skips
    assert all(p.tensor is not None for p in contents.parameters.values())


def test_the_nearest_of_several_is_taken(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = adapter(tmp_path / "a" / "b" / "checkpoint-5", rng, "base")
    for place in ("a", "."):
        write_model(tmp_path / place / "base", random_weights(rng))
    assert base_folder(folder) == tmp_path / "a" / "base"


def test_a_run_with_the_name_of_its_base_is_not_the_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = adapter(tmp_path / "gpt2" / "checkpoint-5", rng, "gpt2")
    write_model(tmp_path / "gpt2", random_weights(rng))  # the final model, at the run's root
    contents = peft.read(folder, DEFAULT)
    assert contents.base is None and [n.reason for n in contents.notes] == ["base-missing"]


@pytest.mark.parametrize("named", ["org/absent", "./no/such", "", "x" * 300])
def test_a_missing_base_is_named_with_what_to_do(
    named: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    contents = peft.read(adapter(tmp_path / "run", rng, named), DEFAULT)
    (note,) = contents.notes
    assert note.reason == "base-missing" and note.path == str(tmp_path / "run")
    assert named[:50] in note.message and "as `base`" in note.message
    assert "--" not in note.message and len(str(note)) < 500
    assert contents.base is None and not contents.skips
    assert all(p.tensor is None and p.adapter for p in contents.parameters.values())


def test_a_given_base_precedes_the_named_one(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = adapter(tmp_path / "run", rng, "named")
    for name in ("named", "given"):
        write_model(tmp_path / name, random_weights(rng))
    contents = peft.read(folder, Options(base=tmp_path / "given"))
    assert contents.base == str(tmp_path / "given") and not contents.notes
    with pytest.raises(RankscopeError, match="not a model"):
        peft.read(folder, Options(base=tmp_path / "empty"))


def test_a_config_of_mlx_is_not_a_peft_adapter(tmp_path: Path) -> None:
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 4, "scale": 20.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert not peft.recognises(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert peft.recognises(tmp_path)


def of_other_shape(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: np.pad(matrix, 4) for name, matrix in random_weights(rng).items()}


@pytest.mark.parametrize("kind", ["shape", "names"])
def test_a_given_base_of_another_model_is_refused(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = adapter(tmp_path / "run", rng, "named")
    weights = random_weights(rng)
    others = {"shape": of_other_shape(rng), "names": {f"x.{n}y": w for n, w in weights.items()}}
    write_model(tmp_path / "given", others[kind])
    with pytest.raises(WrongSettingError, match=r"is not the base model of .*another `base`"):
        peft.read(folder, Options(base=tmp_path / "given"))


def test_another_model_with_the_name_of_the_base_is_ignored(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = adapter(tmp_path / "run", rng, "base")
    write_model(tmp_path / "base", of_other_shape(rng))
    contents = peft.read(folder, DEFAULT)
    assert "base: model.layers" in contents.notes[0].message and contents.base is None
    assert all(p.tensor is None and p.adapter for p in contents.parameters.values())


def test_a_quantised_base_is_the_base_whatever_its_shapes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = adapter(tmp_path / "run", rng, "base")
    packed = {
        name: np.zeros((len(matrix), matrix.shape[1] // 2), np.uint8)
        for name, matrix in random_weights(rng).items()
        if matrix.ndim == 2
    }
    write_model(tmp_path / "base", packed)  # type: ignore[arg-type]
    contents = peft.read(folder, DEFAULT)
    assert contents.base is not None and not contents.notes
    assert {skip.reason for skip in contents.skips} == {"quantised"}


def test_a_base_quantised_under_other_names_is_the_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = adapter(tmp_path / "run", rng, "elsewhere")
    packed: dict[str, np.ndarray] = {}
    for name, matrix in random_weights(rng).items():
        module = name.removesuffix("weight")
        packed[f"{module}qweight"] = np.zeros((matrix.shape[-1] // 8, len(matrix)), np.int32)
        packed[f"{module}scales"] = np.ones((1, len(matrix)), np.float16)
        packed[f"{module}g_idx"] = np.zeros(matrix.shape[-1], np.int32)
    write_model(tmp_path / "gptq", packed)
    contents = peft.read(folder, Options(base=tmp_path / "gptq"))
    assert contents.base == str(tmp_path / "gptq")
    assert {skip.reason for skip in contents.skips} == {"quantised"}
    assert {p.module for p in contents.parameters.values() if p.adapter} == {*random_factors(rng)}


def test_weights_in_the_file_of_an_adapter_need_not_be_in_its_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """PEFT saves an adapted embedding with its adapter, in the size that it was trained in."""
    folder, module = tmp_path / "run", "model.embed_tokens"
    write_adapter(folder, {}, scale=2.0)
    sizes = {
        "base_layer.weight": (60, 24),
        "lora_embedding_A": (4, 60),
        "lora_embedding_B": (24, 4),
    }
    stored = {
        f"base_model.model.{module}.{end}": rng.standard_normal(size).astype(np.float32)
        for end, size in sizes.items()
    }
    save_file(stored, folder / "adapter_model.safetensors")
    base = random_weights(rng) | {f"{module}.weight": np.ones((50, 24), np.float32)}
    write_model(tmp_path / "base", base)
    contents = peft.read(folder, Options(base=tmp_path / "base"))
    embedding = contents.parameters[f"{module}.weight"]
    assert embedding.tensor is not None and embedding.adapter is not None
    assert embedding.tensor.shape == embedding.adapter.shape == (60, 24)
    assert contents.base is not None and not contents.skips
