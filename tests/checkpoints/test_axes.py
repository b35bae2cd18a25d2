"""Tensors of three axes and more: cut if something says how, otherwise not measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError

Shapes = dict[str, tuple[int, ...]]


def made(shapes: Shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def read(
    folder: Path, tensors: dict[str, np.ndarray], config: dict[str, Any] | None = None,
    options: Options = DEFAULT,
) -> Contents:  # fmt: skip
    save_file(tensors, folder / "model.safetensors")
    stored = open_tensors(folder / "model.safetensors")
    return contents_of("any", stored, config or {}, options)


def values(contents: Contents, name: str) -> np.ndarray:
    tensor = contents.parameters[name].tensor
    assert tensor is not None
    return np.asarray(tensor.read())


@pytest.mark.parametrize(
    "shapes",
    [
        {"encoder.0.conv1d.weight": (64, 80, 3)},
        {"net.dwconvs.1.lin.weight": (64, 80, 3)},
        {"feature_extractor.conv_layers.0.0.weight": (64, 2, 10)},
        {"block.ConvBlock.weight": (6, 8, 40)},
        {"encoder.0.weight": (64, 80, 3), "encoder.0.bias": (64,)},
        {"patch.proj.weight": (16, 3, 64), "patch.proj.bias": (16,)},
        {"up.0.weight": (8, 6, 16), "up.0.bias": (6,)},
        {"features.0.weight": (8, 3, 7, 7)},
        {"audio.0.weight": (8, 3, 1, 11)},
        {"patch_embed.proj.weight": (8, 3, 2, 14, 14)},
        {"mix.weight": (8, 6, 1)},
        {"mix.weight": (8, 6, 1, 1)},
        {"blocks.0.experts.2.conv1.weight": (8, 6, 3)},
    ],
    ids=lambda shapes: next(iter(shapes)) + str(next(iter(shapes.values()))),
)
def test_a_row_of_a_convolution_is_the_kernels_of_an_output(shapes: Shapes, tmp_path: Path) -> None:
    tensors = made(shapes)
    contents = read(tmp_path, tensors)
    name = next(iter(shapes))
    assert list(contents.parameters) == [name] and not contents.skips
    flat = tensors[name].reshape(shapes[name][0], -1)
    assert (values(contents, name) == flat).all()


@pytest.mark.parametrize(
    "shapes",
    [
        {"head.weight": (31, 24, 40)},
        {"attn.W_Q": (4, 32, 8)},
        {"net.fc1.weight": (6, 8, 12)},
        {"net.conversation.weight": (6, 8, 12)},
        {"attn.qkv_w": (4, 32, 32)},
        {"attn.qkv_w": (3, 32, 48)},
        {"attn.proj_w": (3, 32, 32)},
        {"mix.stacked.weight": (2, 4, 32, 16)},
        {"layers.attention.query.kernel": (32, 2, 4, 8)},
        {"layers.attention.out.kernel": (4, 16, 2, 64)},
        {"mix.volume.weight": (2, 3, 4, 40, 50)},
        {"one.weight": (1, 8, 6)},
    ],
    ids=lambda shapes: next(iter(shapes)) + str(next(iter(shapes.values()))),
)
def test_unexplained_axes_are_skipped_with_shape_and_advice(shapes: Shapes, tmp_path: Path) -> None:
    contents = read(tmp_path, made(shapes | {"other.weight": (4, 4)}))
    assert list(contents.parameters) == ["other.weight"]
    (skip,) = contents.skips
    ((name, shape),) = shapes.items()
    assert (skip.tensor, skip.reason) == (name, "not-understood")
    assert str(list(shape)) in skip.message and "[axes]" in skip.message
    assert "--" not in skip.message and len(str(skip)) < 500


@pytest.mark.parametrize(
    ("leaf", "shape", "roles"),
    [
        ("attn.qkv_w", (3, 8, 8), "qkv"),
        ("attn.qkvo_w", (4, 8, 8), "qkvo"),
        ("attn.Wqkv", (3, 8, 8), "qkv"),
        ("attn.to_kv.weight", (2, 8, 8), "kv"),
    ],
)
def test_square_matrices_in_qkv_have_the_roles_of_its_letters(
    leaf: str, shape: tuple[int, ...], roles: str, tmp_path: Path
) -> None:
    tensors = made({f"blocks.1.{leaf}": shape})
    contents = read(tmp_path, tensors)
    assert [(p.role, p.layer) for p in contents.parameters.values()] == [(r, 1) for r in roles]
    for i, role in enumerate(roles):
        assert (
            values(contents, f"blocks.1.{leaf}[{role}]") == tensors[f"blocks.1.{leaf}"][i]
        ).all()
    (entry,) = contents.account
    assert (entry.kind, entry.reason) == ("matrix", ", ".join(roles))


def test_jax_has_the_outputs_last(tmp_path: Path) -> None:
    tensors = made({
        "attn.query.kernel": (12, 4, 3), "attn.query.bias": (4, 3), "attn.out.kernel": (4, 3, 12),
        "attn.out.bias": (12,), "conv_1.kernel": (3, 3, 5, 7),
    })  # fmt: skip
    contents = read(tmp_path, tensors)
    assert not contents.skips and len(contents.parameters) == 3
    query, out, conv = (
        tensors[n] for n in ("attn.query.kernel", "attn.out.kernel", "conv_1.kernel")
    )
    assert (values(contents, "attn.query.kernel") == query.reshape(12, 12).T).all()
    assert (values(contents, "attn.out.kernel") == out.reshape(12, 12).T).all()
    assert (values(contents, "conv_1.kernel") == conv.reshape(45, 7).T).all()


def test_a_router_with_one_row_per_matrix_shows_experts(tmp_path: Path) -> None:
    tensors = made({
        "blocks.0.moe.w1": (4, 6, 8), "blocks.0.moe.gate.weight": (4, 8),
        "blocks.1.mlp.w1": (4, 6, 8), "blocks.1.mlp.gate_bias": (4, 6),
    })  # fmt: skip
    contents = read(tmp_path, tensors)
    experts = [p for p in contents.parameters.values() if p.expert is not None]
    assert [(p.layer, p.expert, p.shape) for p in experts] == [(0, i, (6, 8)) for i in range(4)]
    assert [skip.tensor for skip in contents.skips] == ["blocks.1.mlp.w1"]


@pytest.mark.parametrize("gate", ["mlp.gate", "mlp.router.layer"])
def test_a_router_outside_the_experts_module_shares_their_inputs(gate: str, tmp_path: Path) -> None:
    tensors = made({
        f"layers.0.{gate}.weight": (4, 8),
        "layers.0.mlp.switch.up.weight": (4, 6, 8), "layers.0.mlp.switch.down.weight": (4, 8, 6),
        "layers.0.mlp.mix.table.weight": (4, 6, 7),
    })  # fmt: skip
    contents = read(tmp_path, tensors)
    for part in ("up", "down"):
        stack = f"layers.0.mlp.switch.{part}.weight"
        for i in range(4):
            assert contents.parameters[f"{stack}[{i}]"].expert == i
            assert (values(contents, f"{stack}[{i}]") == tensors[stack][i]).all()
    assert [skip.tensor for skip in contents.skips] == ["layers.0.mlp.mix.table.weight"]


# Layers in one tensor.

STACK: Shapes = {
    "decoder.layers.self_attention.linear_proj.weight": (3, 32, 32),
    "decoder.layers.mlp.linear_fc1.weight": (3, 64, 32),
    "decoder.layers.mlp.linear_fc1.layer_norm_weight": (3, 32),
    "decoder.layers.mlp.linear_fc1.bias": (3, 64),
    "decoder.layers.mlp.experts.linear_fc2.weight": (3, 4, 32, 64),
    "decoder.final_layernorm.weight": (32,),
    "embedding.word_embeddings.weight": (50, 32),
}


def renamed(shapes: Shapes, segment: str) -> Shapes:
    return {name.replace("decoder.layers", segment): shape for name, shape in shapes.items()}


@pytest.mark.parametrize("segment", ["decoder.layers", "h", "model.blocks", "net.trf_blocks"])
@pytest.mark.parametrize("config", [{}, {"num_layers": 3}])
def test_stacked_layers_are_matrices_of_their_layers(
    segment: str, config: dict[str, Any], tmp_path: Path
) -> None:
    tensors = made(renamed(STACK, segment))
    contents = read(tmp_path, tensors, config)
    assert not contents.skips
    for i in range(3):
        name = f"{segment}.{i}.mlp.linear_fc1.weight"
        whole = tensors[f"{segment}.mlp.linear_fc1.weight"]
        assert (values(contents, name) == whole[i]).all()
        for expert in range(4):
            inner = f"{segment}.{i}.mlp.experts.linear_fc2.weight[{expert}]"
            stack = tensors[f"{segment}.mlp.experts.linear_fc2.weight"]
            assert (values(contents, inner) == stack[i, expert]).all()
            assert contents.parameters[inner].expert == expert
    assert len(contents.parameters) == 3 * (1 + 1 + 4) + 1
    kinds = {one.tensor: one.kind for one in contents.account}
    assert kinds[f"{segment}.mlp.linear_fc1.layer_norm_weight"] == "no linear map"
    assert kinds[f"{segment}.mlp.linear_fc1.bias"] == "no linear map"
    assert kinds[f"{segment}.mlp.linear_fc1.weight"] == "matrix"
    assert len(contents.account) == len(tensors)


def test_stacked_layers_have_their_numbers(tmp_path: Path) -> None:
    contents = read(tmp_path, made(STACK))
    assert {p.layer for p in contents.parameters.values()} == {0, 1, 2, None}


@pytest.mark.parametrize(
    ("shapes", "config"),
    [
        ({"layers.first.weight": (8, 8, 3), "layers.second.weight": (8, 8, 3),
          "layers.first.bias": (8,)}, {}),
        ({"layers.conv1.weight": (8, 8, 3), "layers.conv2.weight": (8, 8, 3)}, {}),
        ({"layers.a.weight": (3, 8, 6), "layers.b.weight": (4, 8, 6)}, {}),
        ({"layers.a.weight": (3, 8, 6), "layers.b.weight": (3, 8, 6)}, {"num_layers": 5}),
        ({"layers.a.weight": (64, 8, 6)}, {}),
        ({"layers.a.weight": (8, 6), "layers.b.weight": (8, 6)}, {}),
        ({"layers.weight": (3, 8, 6)}, {}),
        ({"layers.0.a.weight": (3, 8, 6), "layers.1.a.weight": (3, 8, 6)}, {}),
    ],
)  # fmt: skip
def test_what_only_looks_like_stacked_layers_is_not_cut(
    shapes: Shapes, config: dict[str, Any], tmp_path: Path
) -> None:
    contents = read(tmp_path, made(shapes), config)
    assert all(name in shapes for name in contents.parameters)


# What a family's table says.

TABLE = """
name = "mine"
[roles]
"attn.W_Q" = "q"
"attn.W_O" = "o"
[axes]
"attn.W_Q" = ["out", "in", "out"]
"attn.W_O" = ["in", "in", "out"]
"attn.mix" = ["part", "in", "out"]
"mlp.W" = ["in", "layer", "out"]
"moe.W" = ["layer", "expert", "out", "in"]
[fused."attn.mix"]
parts = ["k", "v"]
"""


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "mine.toml").write_text(TABLE)
    return Options(family=read_family(tmp_path / "mine.toml"))


def test_a_table_says_which_axes_are_joined(tmp_path: Path, options: Options) -> None:
    tensors = made({
        "b.attn.W_Q": (4, 32, 8), "b.attn.W_O": (4, 8, 32), "b.attn.mix": (2, 32, 16),
        "mlp.W": (32, 3, 24), "moe.W": (3, 2, 12, 32),
    })  # fmt: skip
    contents = read(tmp_path, tensors, options=options)
    assert not contents.skips and len(contents.parameters) == 2 + 2 + 3 + 6
    q = np.moveaxis(tensors["b.attn.W_Q"], 1, 2).reshape(32, 32)
    assert (values(contents, "b.attn.W_Q") == q).all()
    assert (values(contents, "b.attn.W_O") == tensors["b.attn.W_O"].reshape(32, 32).T).all()
    for i, role in enumerate("kv"):
        part = contents.parameters[f"b.attn.mix[{role}]"]
        assert part.role == role
        assert (values(contents, part.name) == tensors["b.attn.mix"][i].T).all()
    for i in range(3):
        assert contents.parameters[f"mlp.W[{i}]"].layer == i
        assert (values(contents, f"mlp.W[{i}]") == tensors["mlp.W"][:, i].T).all()
        expert = contents.parameters[f"moe.W[{i}][1]"]
        assert (expert.layer, expert.expert) == (i, 1)
        assert (values(contents, expert.name) == tensors["moe.W"][i, 1]).all()


def test_a_wrong_number_of_parts_is_not_understood(tmp_path: Path, options: Options) -> None:
    contents = read(tmp_path, made({"b.attn.mix": (3, 32, 16)}), options=options)
    assert not contents.parameters and [s.reason for s in contents.skips] == ["not-understood"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ('"in"', "must be a list of out, in, layer, expert, part"),
        ('["in", "head"]', "must be a list of out, in, layer, expert, part"),
        ('["in", "in"]', "must have out and in"),
        ('["layer", "layer", "out", "in"]', "any other at most once"),
        ('["in", "out", "in"]', "must be neighbours"),
    ],
)
def test_axes_that_make_no_matrix_are_refused(axes: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'name = "x"\n[axes]\nw = {axes}\n')
    with pytest.raises(RankscopeError, match=message):
        read_family(tmp_path / "mine.toml")


def test_a_bias_shows_which_side_of_a_matrix_its_outputs_are(tmp_path: Path) -> None:
    tensors = made({
        "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,),  # as Conv1D stores it
        "h.0.mlp.mix.weight": (8, 8), "h.0.mlp.mix.bias": (8,),
        "h.0.attn.k_proj.weight": (8, 8), "h.0.attn.k_proj.bias": (8,),  # a Linear beside it
        "h.0.attn.out.weight": (8, 16), "h.0.attn.out.bias": (8,),
    })  # fmt: skip
    contents = read(tmp_path, tensors)
    for name in ("h.0.mlp.c_fc.weight", "h.0.mlp.mix.weight"):
        assert (values(contents, name) == tensors[name].T).all()
    for name in ("h.0.attn.k_proj.weight", "h.0.attn.out.weight"):
        assert (values(contents, name) == tensors[name]).all()


@pytest.mark.parametrize(("weight", "bias"), [("W1", "b1"), ("w_in", "b_in"), ("fc_w", "fc_b")])
def test_a_bias_named_after_its_matrix_shows_it_too(weight: str, bias: str, tmp_path: Path) -> None:
    tensors = made({f"h.0.{weight}": (8, 32), f"h.0.{bias}": (32,)})
    assert (values(read(tmp_path, tensors), f"h.0.{weight}") == tensors[f"h.0.{weight}"].T).all()


@pytest.mark.parametrize("is_turned", [True, False])
def test_biases_show_which_side_of_experts_their_outputs_are(
    is_turned: bool, tmp_path: Path
) -> None:
    tensors = made({"h.0.experts.w1": (4, 24, 8), "h.0.experts.b1": (4, 8 if is_turned else 24)})
    expert = tensors["h.0.experts.w1"][2]
    expected = expert.T if is_turned else expert
    assert (values(read(tmp_path, tensors), "h.0.experts.w1[2]") == expected).all()


@pytest.mark.parametrize(
    "shapes",
    [
        {"critic.4.weight": (5, 32, 1), "critic.4.bias": (5, 1, 1)},  # of five critics
        {"convs.0.conv.weight": (1, 16, 32, 3, 3)},  # StyleGAN 2: for each image in the batch
        {"to_rgb.conv.weight": (1, 3, 32, 1, 1)},
        {"s4.kernel.C": (2, 24, 8, 2)},  # complex numbers of a state space
    ],
)
def test_small_axes_alone_do_not_make_a_convolution(shapes: Shapes, tmp_path: Path) -> None:
    contents = read(tmp_path, made(shapes))
    assert not contents.parameters
    assert [skip.reason for skip in contents.skips] == ["not-understood"]


@pytest.mark.parametrize("is_turned", [True, False])
def test_a_router_shows_which_side_of_its_experts_their_inputs_are(
    is_turned: bool, tmp_path: Path
) -> None:
    """Whatever the family says of files: the stacks that it knows are stored one of two ways."""
    shapes: Shapes = {"up_proj": (4, 24, 8), "down_proj": (4, 8, 24)}  # (experts, outputs, inputs)
    tensors = made({f"model.layers.0.mlp.experts.{n}": s for n, s in shapes.items()})
    tensors["model.layers.0.mlp.gate.weight"] = np.ones((4, 8), np.float32)
    stored = {n: t.swapaxes(1, 2).copy() if is_turned and t.ndim == 3 else t
              for n, t in tensors.items()}  # fmt: skip
    contents = read(tmp_path, stored, {"model_type": "qwen3_moe"})
    for part in shapes:
        name = f"model.layers.0.mlp.experts.{part}"
        assert (values(contents, f"{name}[2]") == tensors[name][2]).all()
