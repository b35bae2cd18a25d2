"""A slice is never taken for a model: slices are joined to the model they came from, or refused."""

import json
import re
import subprocess
import sys
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from rankscope.checkpoints.contents import Contents, Heads
from rankscope.checkpoints.discovery import open_run, open_runs
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.slicing import slice_names
from rankscope.checkpoints.slicing.slice_names import parsed, slice_in_name
from rankscope.checkpoints.slicing.sliced_groups import sliced_groups
from rankscope.checkpoints.slicing.slices_by_name import Slices
from rankscope.errors import RankscopeError

WIDTH, HEADS, SIZE, VOCABULARY, LAYERS = 32, 4, 8, 48, 2
Tensors = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(2307)


def save(path: Path, found: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(found, path)
    else:
        torch.save(found, path)


def read(path: Path, options: Options = DEFAULT) -> Contents:
    """Contents of a path, by the layout that recognises it."""
    layout = layout_of(path)
    assert layout is not None, f"{path} is not recognised"
    return LAYOUTS[layout].read(path, options)


def refusal(path: Path) -> str:
    """The one line with which slices are refused."""
    with pytest.raises(RankscopeError) as caught:
        read(path)
    assert caught.value.reason == "slices"
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)
    return str(caught.value)


def assert_accounted(contents: Contents, count: int) -> None:
    """Whether there are ``count`` tensors in the files, each understood and in one class."""
    assert len({(one.path, one.tensor) for one in contents.account}) == len(contents.account)
    assert len(contents.account) == count
    assert "not understood" not in {one.kind for one in contents.account}


def count_stored(folder: Path) -> int:
    """Number of tensors that torch finds in the files below a folder."""

    def count(found: Any) -> int:
        if isinstance(found, dict):
            return sum(map(count, found.values()))
        return int(isinstance(found, torch.Tensor))

    files = [path for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".ckpt")]
    assert files
    return sum(count(torch.load(file, weights_only=False)) for file in files)


def assert_joined(contents: Contents, whole: Mapping[str, torch.Tensor], *, files: int = 1) -> None:
    """Whether the matrices are the original ones to the bit, and every tensor has its class."""
    matrices = {name: tensor for name, tensor in whole.items() if tensor.ndim > 1}
    found = {p.name: p.tensor for p in contents.parameters.values()}
    assert found.keys() == matrices.keys()
    for name, tensor in matrices.items():
        held = found[name]
        assert held is not None and held.shape == tuple(tensor.shape), name
        assert (torch.from_numpy(held.read()) == tensor.float()).all(), name
    assert not contents.skips
    assert_accounted(contents, files * len(whole))


# Names


@pytest.mark.parametrize(
    ("form", "stem"),
    [
        ("consolidated.{:02d}", "consolidated"),
        ("mp_rank_{:02d}", "mp_rank"),
        ("mp_rank_00_{:03d}", "mp_rank"),
        ("model_world_size_8_rank_{}", "model_world_size_8"),
        ("rank_{}", "rank"),
        ("rank{}", "rank"),
        ("Rank-{}", "Rank"),
        ("state_dict.rank-{:05d}", "state_dict"),
        ("pytorch_model_fsdp_rank{}", "pytorch"),
        ("model_tp{}_pp0", "model"),
        ("tp_rank_{:02d}_pp_rank_000", "tp_rank"),
        ("checkpoint_last-model_part-{}", "checkpoint_last"),
        ("weights-part-{}", "weights"),
        ("shard_{}", "shard"),
        ("slice{}of9", "slice"),
        ("partition-id-{}", "partition-id"),
        ("weights.piece.{}", "weights"),
        ("step_100_rank_{}", "step_100"),
        ("rank_{}_step_100", "step_100"),
        ("ep1-ba1000-rank{}", "ep1-ba1000"),
        ("checkpoint-500-tensor-parallel-rank-{}", "checkpoint-500"),
        ("pipeline_stage_{}", "pipeline_stage"),
        ("model{}-mp8", "model"),
    ],
)
@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_name_is_separated_from_its_rank(form: str, stem: str, number: int) -> None:
    found = parsed(form.format(number))
    assert found is not None and number in found.numbers and found.stem == stem
    others = {parsed(form.format(other)) for other in range(9)}
    assert {other.form for other in others if other} == {found.form}


def test_a_name_may_state_how_many_slices_there_are() -> None:
    found = [parsed(name) for name in ("model3-mp8", "rank_3_of_8")]
    assert [(one.numbers, one.world) for one in found if one] == [((3,), 8)] * 2


@pytest.mark.parametrize(
    "name",
    [
        *("checkpoint-500", "step_100", "global_step100", "model-00001-of-00002", "llama-7b"),
        *("lora_rank_8", "relora-rank128", "low_rank_4", "lowrank4", "max_rank_16", "svd_rank_2"),
        *("frank_0", "apart_1", "epoch_1_of_4", "ckpt-3-of-10", "cp-0001", "ep3", "seed1", "rank"),
        *("world_size_8", "actor_2", "model_3", "epoch=0-step=100", "part_b"),
    ],
)
def test_a_name_without_a_rank_states_none(name: str) -> None:
    assert slice_in_name(name) is None


def test_all_that_the_pattern_of_slices_matches_may_be_one() -> None:
    words = [*"abc", "mp_rank", "model-parallel", "gpu", "chunks", "tp", "pipe.stage", "id", "of"]
    rng = np.random.default_rng(5)
    names = ["".join(rng.choice([*words, *"0123_-. "], size=8)) for _ in range(3_000)]
    matched = [name for name in names if re.search(slice_names.SLICE, name, re.ASCII)]
    assert len(matched) > 100
    assert all(slice_names.MAY_BE.search(name) for name in matched)


# What nobody knows how to join is refused

KINDS = [
    "consolidated.{:02d}.pth",
    "mp_rank_{:02d}/model_optim_rng.pt",
    "mp_rank_{:02d}_000/model_optim_rng.pt",
    "tp_rank_{:02d}_pp_rank_000/model_weights.ckpt",
    "model_world_size_2_rank_{}.pt",
    "rank_{}.pt",
    "rank{}.safetensors",
    "rank_{}/model.pt",
    "rank_{}/weights/model.safetensors",
    "pytorch_model_fsdp_rank{}.bin",
    "model_tp{}_pp0.pt",
    "checkpoint_last-model_part-{}.pt",
    "shard_{}.pt",
    "weights_slice{}.ckpt",
    "partition-{:04d}.pth",
    "gpu{}.pt",
    "model_{}_of_2.pt",
    "local_rank_{}.pth.tar",
]


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("base", [0, 1])
def test_slices_without_a_configuration_are_refused(form: str, base: int, tmp_path: Path) -> None:
    if base and "/" in form and ":02d" not in form:
        pytest.skip("without a zero or padding, folders are of settings: `rank_16` of adapters")
    for i in range(2):
        half = {"blocks.0.up.weight": torch.randn(16, 12), "norm.weight": torch.ones(12)}
        save(tmp_path / "run" / form.format(i + base), half)
    (run,) = open_runs([tmp_path])
    (checkpoint,) = run
    with pytest.raises(RankscopeError, match=r"2 slices.*no configuration") as caught:
        checkpoint.read()
    assert caught.value.reason == "slices"
    refusal(tmp_path / "run")
    for i in range(2):
        assert layout_of(tmp_path / "run" / form.format(i + base)) in (None, "slices")


@pytest.mark.parametrize(
    "form",
    [
        "step_{}_rank_{}.pt",
        "rank_{1}_step_{0}.pt",
        "model-step={}-shard-{}.safetensors",
        "iter_{:07d}/mp_rank_{:02d}/model_optim_rng.pt",
        "checkpoint-{}/rank_{}.pt",
        "step_{}_rank_{}/model.pt",
        "step-{}-tp{}.pth",
    ],
)
def test_slices_keep_their_steps(form: str, tmp_path: Path) -> None:
    for step in (100, 200, 1000):
        for rank in range(2):
            save(tmp_path / form.format(step, rank), {"fc.weight": torch.randn(8, 6)})
    if form in ("iter_{:07d}/mp_rank_{:02d}/model_optim_rng.pt", "checkpoint-{}/rank_{}.pt"):
        groups = [_only(sliced_groups(folder.iterdir())) for folder in tmp_path.iterdir()]
    else:
        groups = sliced_groups(tmp_path.iterdir())
    assert sorted(len(group.files) for group in groups) == [2, 2, 2]
    steps = {LAYOUTS["slices"].step(group.path) for group in groups}
    assert {step[0] for step in steps if step} == {100, 200, 1000}
    assert all(layout_of(group.path) == "slices" for group in groups)
    for group in groups:
        assert "2 slices" in refusal(group.path)


def _only(groups: list[Slices]) -> Slices:
    (group,) = groups
    return group


def test_a_series_of_sliced_steps_is_one_run(tmp_path: Path) -> None:
    for step in (100, 200):
        for rank in range(3):
            save(tmp_path / f"step_{step}_rank_{rank}.pt", {"fc.weight": torch.randn(8, 6)})
    run = open_run(tmp_path)
    assert run.steps == (100, 200)
    with pytest.raises(RankscopeError, match="3 slices"):
        run[200].read()


def test_a_file_that_is_not_the_first_slice_is_not_a_model(tmp_path: Path) -> None:
    for rank in range(2):
        save(tmp_path / f"rank_{rank}.pt", {"fc.weight": torch.randn(8, 6)})
    with pytest.raises(RankscopeError, match=r"is one slice .*2 slices"):
        open_runs([tmp_path / "rank_1.pt"])
    assert "2 slices" in refusal(tmp_path / "rank_0.pt")


def test_other_files_of_a_training_do_not_hide_its_slices(tmp_path: Path) -> None:
    for rank in range(2):
        save(tmp_path / f"model_world_size_2_rank_{rank}.pt", {"fc.weight": torch.randn(8, 6)})
        save(tmp_path / f"optim_world_size_2_rank_{rank}.pt", {"state": {}})
        rng = {"lr_scheduler": {"step": 3}, "rng": {"cpu": torch.zeros(9, dtype=torch.uint8)}}
        save(tmp_path / f"extra_state_world_size_2_rank_{rank}.pt", rng)
    (group,) = sliced_groups(tmp_path.iterdir())
    assert group.path == tmp_path
    assert [file.name for file in group.files] == [
        "model_world_size_2_rank_0.pt",
        "model_world_size_2_rank_1.pt",
    ]


def test_files_of_ranks_with_different_tensors_are_refused(tmp_path: Path) -> None:
    for rank in range(2):
        save(tmp_path / f"shard_{rank}.pt", {f"layers.{rank}.fc.weight": torch.randn(8, 6)})
    assert "not slices of one model" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("model_world_size_8_rank_0.pt", "1 of 8"),
        ("part-1-of-4.pt", "1 of 4"),
        ("mp_rank_01/model_optim_rng.pt", "1 slices"),
        ("rank_3.pt", "1 slices"),
        ("consolidated.01.pth", "1 slices"),
    ],
)
def test_a_slice_alone_is_refused(name: str, there: str, tmp_path: Path) -> None:
    save(tmp_path / name, {"layers.0.fc.weight": torch.randn(8, 6)})
    assert there.replace("1 slices", "slice") in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("rank_0.pt", "rank0.safetensors", "model_world_size_1_rank_0.pt", "shard_0_of_1.pt"),
        *("mp_rank_00/model_optim_rng.pt", "ep0-ba1000-rank0.pt", "step_5/rank_0/model.pt"),
        "consolidated.00.pth",
    ],
)
def test_the_first_slice_alone_is_a_whole_model(name: str, tmp_path: Path) -> None:
    whole = {"layers.0.fc.weight": torch.randn(8, 6), "layers.1.fc.weight": torch.randn(8, 6)}
    save(tmp_path / name, whole)
    (run,) = open_runs([tmp_path])
    assert_joined(run.checkpoints[0].read(), whole)


def test_files_without_a_rank_in_their_names_are_models(tmp_path: Path) -> None:
    names = (
        "seed1",
        "seed2",
        "actor",
        "critic",
        "model_1",
        "model_2",
        "lora_rank_8",
        "epoch_1_of_3",
    )
    for name in names:
        save(tmp_path / f"{name}.pt", {"layers.0.fc.weight": torch.randn(8, 6)})
    assert sliced_groups(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranks", [(4, 8, 16), (1, 2, 3), (2, 3), (8,)])
@pytest.mark.parametrize("form", ["rank_{}.pt", "rank_{}/model.pt"])
def test_ranks_of_factors_are_not_ranks_of_processes(
    ranks: tuple[int, ...], form: str, tmp_path: Path
) -> None:
    for rank in ranks:
        factors = {
            "q.lora_A.weight": torch.randn(rank, 24),
            "q.lora_B.weight": torch.randn(32, rank),
        }
        save(tmp_path / form.format(rank), factors)
    assert sliced_groups(tmp_path.iterdir()) == []


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3), (5, 6, 7), (0, 4)])
def test_slices_without_the_first_are_refused(numbers: tuple[int, ...], tmp_path: Path) -> None:
    for number in numbers:
        save(tmp_path / f"rank_{number}.pt", {"layers.0.fc.weight": torch.randn(16, 12)})
    assert f"{len(numbers)} slices" in refusal(tmp_path)


def test_shards_of_hugging_face_are_still_one_model(tmp_path: Path) -> None:
    whole = {f"model.layers.{i}.mlp.up_proj.weight": torch.randn(8, 6) for i in range(2)}
    listing = {}
    for i, (name, tensor) in enumerate(whole.items()):
        listing[name] = f"model-0000{i + 1}-of-00002.safetensors"
        save(tmp_path / listing[name], {name: tensor})
    index = {"metadata": {}, "weight_map": listing}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert layout_of(tmp_path) == "huggingface"
    assert_joined(read(tmp_path), whole)


def test_data_in_shards_are_not_slices(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"train_shard_{i}.bin").write_bytes(bytes(range(1, 200)))
        (tmp_path / f"shard-{i:04d}.tar").write_bytes(b"0.jpg".ljust(512, b"\0"))
        save(tmp_path / f"tokens_part_{i}.pt", {"ids": torch.arange(9)})
    assert sliced_groups(tmp_path.iterdir()) == []


# Meta's Llama


def meta_model(*, kv_heads: int = HEADS, hidden: int = 88) -> Tensors:
    whole = {
        "tok_embeddings.weight": torch.randn(VOCABULARY, WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "output.weight": torch.randn(VOCABULARY, WIDTH),
        "rope.freqs": torch.ones(SIZE // 2),
    }
    for i in range(LAYERS):
        shapes = {
            "attention.wq": (WIDTH, WIDTH),
            "attention.wk": (kv_heads * SIZE, WIDTH),
            "attention.wv": (kv_heads * SIZE, WIDTH),
            "attention.wo": (WIDTH, WIDTH),
            "feed_forward.w1": (hidden, WIDTH),
            "feed_forward.w2": (WIDTH, hidden),
            "feed_forward.w3": (hidden, WIDTH),
        }
        whole |= {f"layers.{i}.{n}.weight": torch.randn(s) for n, s in shapes.items()}
        whole |= {f"layers.{i}.{n}_norm.weight": torch.ones(WIDTH) for n in ("attention", "ffn")}
    return whole


def meta_slices(
    folder: Path, whole: Tensors, count: int, *, by_column: bool = False, **params: Any
) -> None:
    """Split a model as Meta does; Llama 3 no longer splits its embeddings by columns."""
    columns = ("wo.weight", "w2.weight", *(("tok_embeddings.weight",) if by_column else ()))
    for i in range(count):
        part = {
            name: tensor
            if tensor.ndim == 1
            else tensor.chunk(count, dim=1 if name.endswith(columns) else 0)[i].clone()
            for name, tensor in whole.items()
        }
        save(folder / f"consolidated.{i:02d}.pth", part)
    stated = {
        "dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "multiple_of": 8,
        "norm_eps": 1e-5,
    }
    (folder / "params.json").write_text(json.dumps(stated | params))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_metas_slices_are_joined_to_the_bit(
    count: int, by_column: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    whole = {name: tensor.to(dtype) for name, tensor in meta_model().items()}
    vocabulary = -1 if by_column else VOCABULARY
    meta_slices(tmp_path, whole, count, by_column=by_column, vocab_size=vocabulary)
    contents = read(tmp_path)
    assert (contents.layout, contents.family) == ("slices", "meta_llama")
    assert contents.heads == Heads(HEADS, HEADS, SIZE)
    assert_joined(contents, whole, files=count)
    assert_accounted(contents, count_stored(tmp_path))


def test_metas_slices_with_fewer_keys_than_heads_are_joined(tmp_path: Path) -> None:
    whole = meta_model(kv_heads=2, hidden=112)
    params = {"n_kv_heads": 2, "vocab_size": VOCABULARY, "ffn_dim_multiplier": 1.3}
    meta_slices(tmp_path, whole, 2, **params)
    contents = read(tmp_path)
    assert contents.heads == Heads(HEADS, 2, SIZE)
    assert_joined(contents, whole, files=2)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"multiple_of": 64}, "w1"),
        ({"n_kv_heads": 2}, "wk"),
        ({"vocab_size": 50}, "output"),
        ({"head_dim": 16}, "wq"),
    ],
)
def test_metas_slices_that_do_not_fit_their_parameters_are_refused(
    params: dict[str, int], name: str, tmp_path: Path
) -> None:
    meta_slices(tmp_path, meta_model(), 2, **params)
    message = refusal(tmp_path)
    assert "the configuration has" in message and "2 slices" in message
    assert name in message or (name, "tok_embeddings" in message) == ("output", True)


def test_one_of_metas_slices_is_not_a_model(tmp_path: Path) -> None:
    meta_slices(tmp_path, meta_model(), 2)
    (tmp_path / "consolidated.01.pth").unlink()
    assert "the configuration has" in refusal(tmp_path)


def test_damaged_parameters_of_meta_are_named(tmp_path: Path) -> None:
    meta_slices(tmp_path, meta_model(), 2)
    (tmp_path / "params.json").write_text("{")
    with pytest.raises(RankscopeError, match=r"params\.json: is not valid JSON"):
        read(tmp_path)


@pytest.mark.parametrize("factor", [float("inf"), 1e308, "x", None])
def test_an_odd_multiplier_of_meta_is_read_or_refused(factor: object, tmp_path: Path) -> None:
    meta_slices(tmp_path, meta_model(), 2)
    params = json.loads((tmp_path / "params.json").read_text())
    (tmp_path / "params.json").write_text(json.dumps(params | {"ffn_dim_multiplier": factor}))
    with suppress(RankscopeError):
        read(tmp_path)


def test_a_slice_missing_between_others_is_noticed(tmp_path: Path) -> None:
    meta_slices(tmp_path, meta_model(), 4)
    (tmp_path / "consolidated.02.pth").unlink()
    assert "the configuration has" in refusal(tmp_path)


def test_a_matrix_without_a_rule_costs_only_itself(tmp_path: Path) -> None:
    whole = meta_model()
    meta_slices(tmp_path, whole | {"vision.proj.weight": torch.randn(16, 12)}, 2)
    contents = read(tmp_path)
    (skip,) = contents.skips
    assert (skip.tensor, skip.reason) == ("vision.proj.weight", "slices")
    assert {p.name for p in contents.parameters.values()} == {n for n in whole if whole[n].ndim > 1}
    odd = [one for one in contents.account if one.kind == "not understood"]
    assert [one.tensor for one in odd] == 2 * ["vision.proj.weight"]


# Megatron

ARGS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "ffn_hidden_size": 64,
    "num_attention_heads": HEADS,
    "kv_channels": SIZE,
    "num_layers": LAYERS,
    "group_query_attention": False,
    "num_query_groups": 1,
    "swiglu": True,
    "padded_vocab_size": VOCABULARY,
    "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 1,
}
CORE = {
    "qkv": "decoder.layers.{}.self_attention.linear_qkv.weight",
    "o": "decoder.layers.{}.self_attention.linear_proj.weight",
    "up": "decoder.layers.{}.mlp.linear_fc1.weight",
    "down": "decoder.layers.{}.mlp.linear_fc2.weight",
    "norm": "decoder.layers.{}.mlp.linear_fc1.layer_norm_weight",
    "embed": "embedding.word_embeddings.weight",
    "unembed": "output_layer.weight",
}
BEFORE_CORE = {
    "qkv": "language_model.encoder.layers.{}.self_attention.query_key_value.weight",
    "o": "language_model.encoder.layers.{}.self_attention.dense.weight",
    "up": "language_model.encoder.layers.{}.mlp.dense_h_to_4h.weight",
    "down": "language_model.encoder.layers.{}.mlp.dense_4h_to_h.weight",
    "norm": "language_model.encoder.layers.{}.input_layernorm.weight",
    "embed": "language_model.embedding.word_embeddings.weight",
    "unembed": "language_model.output_layer.weight",
}


def megatron_model(names: Mapping[str, str], *, groups: int = HEADS, gated: bool = True) -> Tensors:
    hidden = 64
    shapes = {
        "qkv": ((HEADS + 2 * groups) * SIZE, WIDTH),
        "o": (WIDTH, WIDTH),
        "up": ((2 if gated else 1) * hidden, WIDTH),
        "down": (WIDTH, hidden),
        "norm": (WIDTH,),
        "embed": (VOCABULARY, WIDTH),
        "unembed": (VOCABULARY, WIDTH),
    }
    return {
        name: torch.randn(shapes[what])
        for what, form in names.items()
        for name in dict.fromkeys(form.format(i) for i in range(LAYERS))
    }


def of_rank(name: str, tensor: torch.Tensor, rank: int, count: int, *, gated: bool) -> torch.Tensor:
    """The slice of a tensor-parallel rank: of a gated projection its rows of gate and of up."""
    if tensor.ndim == 1:
        return tensor
    if any(part in name for part in ("linear_proj", "attention.dense", "linear_fc2", "4h_to_h")):
        return tensor.chunk(count, dim=1)[rank].clone()
    if gated and ("linear_fc1" in name or "h_to_4h" in name):
        gate, up = tensor.chunk(2)
        return torch.cat([gate.chunk(count)[rank], up.chunk(count)[rank]])
    return tensor.chunk(count)[rank].clone()


def megatron_slices(
    folder: Path, whole: Tensors, *, stages: int = 1, gated: bool = True, **more: Any
) -> None:
    """Write the files of two tensor-parallel ranks and ``stages`` stages of one layer each."""
    args = ARGS | {"swiglu": gated, "pipeline_model_parallel_size": stages} | more.pop("args", {})
    for rank in range(2):
        for stage in range(stages):
            held = {}
            for name, tensor in whole.items():
                layers = "layers." in name
                number = int(name.split("layers.")[1].split(".")[0]) if layers else 0
                home = stages - 1 if "output_layer" in name else 0
                if stages > 1 and (number if layers else home) != stage:
                    continue
                local = name.replace(f"layers.{number}.", "layers.0.") if stages > 1 else name
                held[local] = of_rank(name, tensor, rank, 2, gated=gated)
            label = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if stages > 1 else "")
            entries = {"args": Namespace(**args), "model": held, "iteration": 700}
            entries |= {"checkpoint_version": 3.0, "optimizer": {"state": {}}}
            save(folder / label / "model_optim_rng.pt", entries | more)


def joined_whole(contents: Contents) -> dict[str, torch.Tensor]:
    """Every joined matrix, whether parts of it or all of it are parameters."""
    found = {}
    for parameter in contents.parameters.values():
        assert parameter.tensor is not None
        name = parameter.name.partition("[")[0]
        found[name] = torch.from_numpy(getattr(parameter.tensor, "whole", parameter.tensor).read())
    return found


@pytest.mark.parametrize("names", [CORE, BEFORE_CORE], ids=["core", "before core"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("stages", [1, 2])
def test_megatrons_slices_are_joined_to_the_bit(
    names: Mapping[str, str], gated: bool, stages: int, tmp_path: Path
) -> None:
    whole = megatron_model(names, gated=gated)
    megatron_slices(tmp_path, whole, stages=stages, gated=gated)
    contents = read(tmp_path)
    assert contents.heads == Heads(HEADS, HEADS, SIZE)
    assert not contents.skips
    assert_accounted(contents, count_stored(tmp_path))
    found = joined_whole(contents)
    assert found.keys() == {name for name, tensor in whole.items() if tensor.ndim > 1}
    for name, tensor in found.items():
        assert (tensor == whole[name]).all(), name
    assert LAYOUTS["slices"].step(tmp_path) == (700, "iteration")


def test_megatrons_grouped_queries_are_joined(tmp_path: Path) -> None:
    whole = megatron_model(CORE, groups=2)
    megatron_slices(tmp_path, whole, args={"group_query_attention": True, "num_query_groups": 2})
    contents = read(tmp_path)
    assert contents.heads == Heads(HEADS, 2, SIZE)
    assert all((tensor == whole[name]).all() for name, tensor in joined_whole(contents).items())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"hidden_size": 64}, "the configuration has"),
        ({"num_attention_heads": 8}, "the configuration has"),
        ({"swiglu": False}, "the configuration has"),
        ({"tensor_model_parallel_size": 4}, "4×1"),
        ({"pipeline_model_parallel_size": 2}, "2×2"),
    ],
)
def test_megatrons_slices_that_do_not_fit_their_arguments_are_refused(
    args: dict[str, Any], said: str, tmp_path: Path
) -> None:
    megatron_slices(tmp_path, megatron_model(CORE), args=args)
    assert said in refusal(tmp_path)


def test_a_stage_too_few_is_noticed(tmp_path: Path) -> None:
    megatron_slices(tmp_path, megatron_model(CORE), stages=2, args={"num_layers": 3})
    assert "2 layers, the configuration 3" in refusal(tmp_path)


def test_one_megatron_rank_of_two_is_not_a_model(tmp_path: Path) -> None:
    megatron_slices(tmp_path, megatron_model(CORE))
    (tmp_path / "mp_rank_01" / "model_optim_rng.pt").unlink()
    assert "2×1" in refusal(tmp_path)


def test_experts_in_slices_are_refused(tmp_path: Path) -> None:
    whole = megatron_model(CORE)
    for expert in range(2):
        megatron_slices(tmp_path / str(expert), whole)
        for rank in range(2):
            held = tmp_path / str(expert) / f"mp_rank_{rank:02d}"
            held.rename(tmp_path / f"mp_rank_{rank:02d}_000_{expert:03d}")
        (tmp_path / str(expert)).rmdir()
    assert "4 slices" in refusal(tmp_path)


def test_queries_in_the_order_of_old_versions_are_not_split(tmp_path: Path) -> None:
    megatron_slices(tmp_path, megatron_model(BEFORE_CORE), checkpoint_version=1.0)
    assert read(tmp_path).heads is None


def test_nemos_configuration_beside_the_slices_counts(tmp_path: Path) -> None:
    whole = megatron_model(CORE)
    for rank in range(2):
        held = {f"model.{n}": of_rank(n, t, rank, 2, gated=True) for n, t in whole.items()}
        save(tmp_path / f"mp_rank_{rank:02d}" / "model_weights.ckpt", held)
    config = {k: v for k, v in ARGS.items() if k != "swiglu"} | {"activation": "fast-swiglu"}
    (tmp_path / "model_config.yaml").write_text(yaml.safe_dump(config))
    found = joined_whole(read(tmp_path))
    assert all(
        (tensor == whole[name.removeprefix("model.")]).all() for name, tensor in found.items()
    )
    assert len(found) == sum(tensor.ndim > 1 for tensor in whole.values())


# Tensors that say themselves what they are a piece of

PROCESSES = """
    import sys, warnings
    import torch, torch.distributed as dist, torch.nn as nn
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor import Shard as Held, init_from_local_shards
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def work(out, rank, world):
        store = f"file://{out}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)

        def save(kind, found):
            torch.save(found, f"{out}/{kind}/model_world_size_{world}_rank_{rank}.pt")

        torch.manual_seed(0)
        whole = {
            "layers.0.uneven.weight": torch.randn(33, 16),
            "layers.0.columns.weight": torch.randn(8, 16),
            "layers.0.copied.weight": torch.randn(8, 8),
            "layers.0.short.weight": torch.randn(1, 16),
            "norm.weight": torch.ones(16),
        }
        even, linear = torch.randn(32, 8), nn.Sequential(nn.Linear(12, 20), nn.Linear(20, 6))
        if rank == 0:
            torch.save(whole, f"{out}/whole.pt")
            torch.save({"layers.0.fc.weight": even}, f"{out}/even.pt")
            torch.save(linear.state_dict(), f"{out}/linear.pt")
        mesh, grid = init_device_mesh("cpu", (world,)), init_device_mesh("cpu", (1, world))
        ways = dict(zip(whole, (Shard(0), Shard(1), Replicate(), Shard(0), Shard(0))))
        save("dtensor", {n: distribute_tensor(t, mesh, [ways[n]]) for n, t in whole.items()})
        on_grid = [Replicate(), Shard(0)]
        save("grid", {n: distribute_tensor(t, grid, on_grid) for n, t in whole.items()})
        rows = 32 // world
        place = ShardMetadata([rows * rank, 0], [rows, 8], placement=f"rank:{rank}/cpu")
        held = [Held(even[rows * rank : rows * rank + rows].clone(), place)]
        save("sharded", {"layers.0.fc.weight": init_from_local_shards(held, 32, 8)})
        save("fsdp", fully_shard(linear, mesh=mesh).state_dict())
        dist.destroy_process_group()

    warnings.simplefilter("ignore")
    work(sys.argv[1] + "/2", int(sys.argv[2]), 2)
    if sys.argv[2] == "0":
        work(sys.argv[1] + "/1", 0, 1)
"""


@pytest.fixture(scope="module")
def saved_by_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with what one and two processes of a training saved without gathering the weights."""
    out = tmp_path_factory.mktemp("processes")
    for kind in ("dtensor", "grid", "sharded", "fsdp"):
        for world in (1, 2):
            (out / str(world) / kind).mkdir(parents=True)
    command = [sys.executable, "-c", textwrap.dedent(PROCESSES), str(out)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    return out


@pytest.mark.parametrize(
    ("kind", "whole"), [("dtensor", "whole"), ("sharded", "even"), ("fsdp", "linear")]
)
@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("world", ["1", "2"])
@pytest.mark.slow
def test_recorded_pieces_are_joined_to_the_bit(
    kind: str, whole: str, trust: bool, world: str, saved_by_processes: Path
) -> None:
    out = saved_by_processes / world
    tensors = torch.load(out / f"{whole}.pt")
    contents = read(out / kind, Options(trust_pickle=trust))
    matrices = {name for name, tensor in tensors.items() if min(tensor.shape) > 1 < tensor.ndim}
    found = {p.name: p.tensor for p in contents.parameters.values()}
    assert found.keys() == matrices
    for name in matrices:
        held = found[name]
        assert held is not None and (torch.from_numpy(held.read()) == tensors[name]).all()
    assert not contents.skips
    assert_accounted(contents, int(world) * len(tensors))


@pytest.mark.slow
def test_pieces_on_a_grid_of_processes_are_refused(saved_by_processes: Path) -> None:
    assert not read(saved_by_processes / "1" / "grid").skips
    assert "several axes" in refusal(saved_by_processes / "2" / "grid")


@pytest.mark.parametrize("kind", ["dtensor", "sharded", "fsdp"])
@pytest.mark.parametrize("ranks", [(0, 0), (1, 1), (1, 0), (0, 1, 1)])
def test_swapped_pieces_are_not_joined_wrongly(
    kind: str, ranks: tuple[int, ...], saved_by_processes: Path, tmp_path: Path
) -> None:
    for number, rank in enumerate(ranks):
        piece = saved_by_processes / "2" / kind / f"model_world_size_2_rank_{rank}.pt"
        (tmp_path / f"rank_{number}.pt").write_bytes(piece.read_bytes())
    if kind == "sharded" and ranks == (1, 0):  # these say where they begin
        even = torch.load(saved_by_processes / "2" / "even.pt")
        assert_joined(read(tmp_path), even, files=2)
    else:
        assert f"{len(ranks)} slices" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "step_100.pt", "model_rank_0.pt", "last.ckpt"])
@pytest.mark.parametrize("kind", ["dtensor", "sharded", "fsdp"])
def test_the_piece_of_one_process_is_not_a_model_whatever_its_name(
    name: str, kind: str, saved_by_processes: Path, tmp_path: Path
) -> None:
    piece = saved_by_processes / "2" / kind / "model_world_size_2_rank_1.pt"
    (tmp_path / name).write_bytes(piece.read_bytes())
    assert "one process's slice" in refusal(tmp_path / name)


# A file for each layer


def neox_folder(folder: Path, ranks: int = 1) -> Tensors:
    whole, at = {}, folder / "mp_rank_00_model_states.pt"
    for number, layer in ((2, 0), (3, 1), (4, 2)):
        held = {
            "attention.query_key_value.weight": torch.randn(3 * WIDTH, WIDTH),
            "attention.dense.weight": torch.randn(WIDTH, WIDTH),
            "mlp.dense_h_to_4h.weight": torch.randn(64, WIDTH),
            "mlp.dense_4h_to_h.weight": torch.randn(WIDTH, 64),
            "input_layernorm.weight": torch.ones(WIDTH),
        }
        for rank in range(ranks):
            save(folder / f"layer_{number:02d}-model_{rank:02d}-model_states.pt", held)
        whole |= {f"layers.{layer}.{name}": tensor for name, tensor in held.items()}
    ends = {0: "word_embeddings.weight", 6: "final_linear.weight"}
    for number, name in ends.items():
        whole[name] = torch.randn(VOCABULARY, WIDTH)
        for rank in range(ranks):
            path = folder / f"layer_{number:02d}-model_{rank:02d}-model_states.pt"
            save(path, {name: whole[name]})
    save(folder / "layer_05-model_00-model_states.pt", {"norm.weight": torch.ones(WIDTH)})
    args = {"num_attention_heads": HEADS, "hidden_size": WIDTH}
    save(at, {"module": {}, "mp_world_size": ranks, "args": args, "global_steps": 100})
    return whole | {"norm.weight": torch.ones(WIDTH)}


def test_a_model_with_a_file_for_each_layer_is_read(tmp_path: Path) -> None:
    whole = neox_folder(tmp_path / "global_step100")
    contents = open_run(tmp_path)[100].read()
    assert contents.heads == Heads(HEADS, HEADS, SIZE)
    assert not contents.skips and len(contents.account) == len(whole)
    found = joined_whole(contents)
    assert found.keys() == {name for name, tensor in whole.items() if tensor.ndim > 1}
    assert all((tensor == whole[name]).all() for name, tensor in found.items())
    assert {p.layer for p in contents.parameters.values()} == {0, 1, 2, None}


def test_a_file_for_each_layer_and_rank_is_refused(tmp_path: Path) -> None:
    neox_folder(tmp_path / "global_step100", ranks=2)
    message = refusal(tmp_path / "global_step100")
    assert "2 files, each with a slice" in message and "pipeline" not in message
