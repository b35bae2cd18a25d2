"""Hugging Face folders in the variants that libraries write, and Axolotl's ReLoRA folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.layouts import huggingface, layout_of
from rankscope.checkpoints.options import DEFAULT
from rankscope.errors import RankscopeError
from tests.conftest import (
    CONFIG,
    MODULES,
    Tensors,
    random_factors,
    random_weights,
    write_adapter,
    write_model,
)

NAME = "model.layers.0.mlp.up_proj.weight"


def write_split(folder: Path, tensors: Tensors, *, variant: str = "") -> None:
    """Write two shards and their index, as `save_pretrained` names them."""
    weight_map = {}
    for i in (1, 2):
        shard = f"model{variant}-0000{i}-of-00002.safetensors"
        part = dict(sorted(tensors.items())[i - 1 :: 2])
        save_file(part, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"model.safetensors.index{variant}.json").write_text(json.dumps(index))


def write_bin(path: Path, tensors: Tensors) -> None:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.tensor(value) for name, value in tensors.items()}, path)


def write_bin_shards(folder: Path, tensors: Tensors) -> None:
    names = sorted(tensors)
    weight_map = {}
    for i in (1, 2):
        shard = f"pytorch_model-0000{i}-of-00002.bin"
        write_bin(folder / shard, {name: tensors[name] for name in names[i - 1 :: 2]})
        weight_map |= dict.fromkeys(names[i - 1 :: 2], shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def marked(value: float) -> Tensors:
    """Weights by which it is told which file was read."""
    return {NAME: np.full((3, 2), value, np.float32), "model.norm.weight": np.ones(2, np.float32)}


def read_mark(folder: Path) -> float:
    values = huggingface.open_weights(folder)[NAME].read()
    return float(values[0, 0])


WRITERS = {
    "index": lambda folder, w: write_split(folder, w),
    "whole": lambda folder, w: save_file(w, folder / "model.safetensors"),
    "index of a variant": lambda folder, w: write_split(folder, w, variant=".fp16"),
    "whole of a variant": lambda folder, w: save_file(w, folder / "model.fp16.safetensors"),
    "index of bin": write_bin_shards,
    "whole of bin": lambda folder, w: write_bin(folder / "pytorch_model.bin", w),
    "variant of bin": lambda folder, w: write_bin(folder / "pytorch_model.fp16.bin", w),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_way_of_saving_is_read(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    weights = random_weights(rng)
    WRITERS[kind](folder, weights)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    checkpoint = open_run(tmp_path)[5]
    assert checkpoint.layout == "huggingface"
    parameters = checkpoint.contents.parameters
    assert set(parameters) == {name for name, value in weights.items() if value.ndim == 2}
    for name, parameter in parameters.items():
        assert parameter.tensor is not None
        assert (parameter.tensor.read() == weights[name]).all()


@pytest.mark.parametrize("better", range(len(WRITERS) - 1))
def test_of_several_ways_the_better_one_is_read(better: int, tmp_path: Path) -> None:
    for mark, write in list(enumerate(WRITERS.values()))[better:]:
        write(tmp_path, marked(float(mark)))
    assert read_mark(tmp_path) == better


@pytest.mark.parametrize(
    ("stale", "whole"),
    [
        ("index", "whole"),
        ("index", "whole of bin"),
        ("index", "index of bin"),
        ("index of bin", "whole of bin"),
        ("index of a variant", "whole of a variant"),
    ],
)
def test_an_index_whose_shards_are_gone_gives_way_to_what_is_whole(
    stale: str, whole: str, tmp_path: Path
) -> None:
    WRITERS[stale](tmp_path, marked(1.0))
    next(tmp_path.glob("*-00001-of-*")).unlink()
    with pytest.raises(RankscopeError, match=r"00001-of-00002.* is missing"):
        read_mark(tmp_path)
    WRITERS[whole](tmp_path, marked(2.0))
    assert read_mark(tmp_path) == 2.0


def test_other_files_are_not_taken_for_the_model(tmp_path: Path) -> None:
    others = (
        *("model-00001-of-00002.safetensors", "model.fp16-00001-of-00002.safetensors"),
        *("consolidated.safetensors", "adapter_model.safetensors", "optimizer.bin"),
        *("training_args.bin", "my_model.safetensors", "pytorch_model-00001-of-00002.bin"),
    )
    for name in others:
        (tmp_path / name).write_bytes(b"something else")
    (tmp_path / "model.safetensors.d").mkdir()
    assert not huggingface.recognises(tmp_path)
    save_file(marked(1.0), tmp_path / "model.safetensors")
    assert read_mark(tmp_path) == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<html></html>", "web page"),
    ],
)
def test_files_that_are_no_weights_say_what_they_are(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(RankscopeError, match=message):
        huggingface.read(tmp_path, DEFAULT)


@pytest.mark.parametrize("weight_map", [None, [], {}, {"w": None}, {"w": 5}, {"w": {}}])
def test_a_damaged_index_is_named(weight_map: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(RankscopeError, match=str(tmp_path)):
        huggingface.read(tmp_path, DEFAULT)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    assert not huggingface.recognises(tmp_path / "absent")
    with pytest.raises(RankscopeError, match=r"neither model\.safetensors"):
        huggingface.read(tmp_path, DEFAULT)


def test_the_tensors_of_a_bin_with_code_in_it_are_read_and_the_code_is_named(
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.ones(2, 2), "hook": shutil.rmtree}, tmp_path / "pytorch_model.bin")
    contents = huggingface.read(tmp_path, DEFAULT)
    assert set(contents.parameters) == {"w"} and not contents.skips
    assert "shutil.rmtree" in str(contents.notes[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_tied_embeddings_count_once(form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    if form == "bin":  # as transformers wrote it before: both names, one storage
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    contents = huggingface.read(tmp_path, DEFAULT)
    roles = [parameter.role for parameter in contents.parameters.values()]
    assert (roles.count("embed"), roles.count("unembed")) == (1, 0)
    assert contents.heads is not None and contents.heads.count == 4


def test_the_trainers_other_files_do_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    write_adapter(tmp_path / "checkpoint-7", random_factors(rng), scale=1.0)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (tmp_path / "checkpoint-7" / name).write_bytes(b"not looked at")
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text('{"global_step": 7}')
    checkpoint = open_run(tmp_path)[7]
    assert (checkpoint.layout, checkpoint.step_source) == ("peft", "trainer_state.json")
    assert set(checkpoint.contents.parameters) == {f"{module}.weight" for module in MODULES}


# ReLoRA of Axolotl: see the docstring of its layout for what it writes when.


def state(folder: Path) -> dict[str, NDArray[Any]]:
    """Effective weights of a checkpoint."""
    contents = open_run(folder)[40].contents
    assert contents.layout == "axolotl-relora"
    found = {}
    for name, parameter in contents.parameters.items():
        assert parameter.tensor is not None
        found[name] = parameter.tensor.read().astype(np.float64)
        if parameter.adapter is not None:
            adapter = parameter.adapter
            found[name] += adapter.scale * adapter.lora_B.read() @ adapter.lora_A.read()
    return found


def test_at_a_merge_axolotls_weights_hold_the_delta_already(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder, weights, factors = tmp_path / "checkpoint-40", random_weights(rng), random_factors(rng)
    write_adapter(folder, factors, scale=2.0)
    write_adapter(folder / "adapter", factors, scale=2.0)
    (folder / "relora").mkdir()
    write_split(folder / "relora", weights)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = state(tmp_path)
    assert all((found[name] == weights[name]).all() for name in found)
    contents = open_run(tmp_path)[40].contents
    assert [skip.reason for skip in contents.skips] == ["adapter-merged"]
    assert contents.heads is not None


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_between_merges_the_adapter_is_on_top_of_axolotls_weights(
    is_wrapped: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    folder, weights, factors = tmp_path / "checkpoint-40", random_weights(rng), random_factors(rng)
    write_adapter(folder, factors, scale=2.0)
    stored = weights
    if is_wrapped:  # the model with the adapters in it, saved without PEFT
        stored = {
            name.replace("proj.weight", "proj.base_layer.weight"): value
            for name, value in weights.items()
        }
        for module, (left, right) in factors.items():
            stored[f"{module}.lora_A.default.weight"] = right.astype(np.float32)
            stored[f"{module}.lora_B.default.weight"] = left.astype(np.float32)
    write_model(folder / "relora", stored)
    found = state(tmp_path)
    assert set(found) == {name for name, value in weights.items() if value.ndim == 2}
    for module, (left, right) in factors.items():
        expected = weights[f"{module}.weight"] + 2.0 * left @ right
        assert found[f"{module}.weight"] == pytest.approx(expected, abs=1e-5)
    assert not open_run(tmp_path)[40].contents.skips


def test_where_axolotl_saves_no_merged_weights_the_delta_stands_alone(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder, factors = tmp_path / "checkpoint-40", random_factors(rng)
    write_adapter(folder, factors, scale=2.0)
    write_adapter(folder / "adapter", factors, scale=2.0)
    contents = open_run(tmp_path)[40].contents
    assert contents.layout == "axolotl-relora"
    assert [skip.reason for skip in contents.skips] == ["base-missing"]
    assert all(p.tensor is None and p.adapter for p in contents.parameters.values())
    assert len(contents.parameters) == len(MODULES)


def test_a_checkpoint_before_the_first_merge_is_an_adapter_on_its_base(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_adapter(tmp_path / "checkpoint-10", random_factors(rng), scale=2.0)
    assert layout_of(tmp_path / "checkpoint-10") == "peft"


def test_an_adapter_beside_a_model_is_on_top_of_it_whatever_the_folder_is_called(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_model(tmp_path / "checkpoint-10", random_weights(rng))
    write_adapter(tmp_path / "checkpoint-10" / "adapter", random_factors(rng), scale=2.0)
    assert layout_of(tmp_path / "checkpoint-10") == "huggingface"
    parameters = open_run(tmp_path)[10].contents.parameters
    assert sum(p.adapter is not None and p.tensor is not None for p in parameters.values()) == 14
    assert load_file(tmp_path / "checkpoint-10" / "model.safetensors").keys() >= set(parameters)


def test_maps_behind_a_sentence_transformer_are_parts_of_the_model(tmp_path: Path) -> None:
    """The library writes each module that follows the model into a folder of its own."""
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        write_model(folder, random_weights(np.random.default_rng(step)))
        for name in ("1_Pooling", "2_Dense"):
            (folder / name).mkdir()
            (folder / name / "config.json").write_text("{}")
        dense = {
            "linear.weight": np.full((3, 2), step, np.float32),
            "linear.bias": np.ones(3, np.float32),
        }
        save_file(dense, folder / "2_Dense" / "model.safetensors")
        (folder / "modules.json").write_text('[{"path": "2_Dense"}]')
    for given, step in ((tmp_path, 20), (tmp_path / "checkpoint-10", 10)):
        run = open_run(given)
        parameter = run[step].contents.parameters["2_Dense.linear.weight"]
        assert parameter.tensor is not None and (parameter.tensor.read() == step).all()
        assert not run[step].contents.skips
    shutil.rmtree(tmp_path / "checkpoint-10" / "2_Dense")
    assert "2_Dense.linear.weight" not in open_run(tmp_path)[10].contents.parameters
