"""Low-rank factors are recognised whatever wrote them, and in any file."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankscope.checkpoints.adapters import grouping
from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.families.family_files import families, parsed
from rankscope.checkpoints.families.recognition import family_of
from rankscope.checkpoints.layouts import (
    huggingface,
    numpy_archive,
    safetensors_alone,
    torch_object,
)
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.components.component import Moment
from rankscope.components.deltas import adapted, delta
from rankscope.components.formed import Formed
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.errors import RankscopeError
from tests.conftest import random_weights, write_model

OUT, IN, RANK = 24, 16, 3
Q = "model.layers.0.self_attn.q_proj"
UNET = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
FLAT = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1"
Tensors = dict[str, NDArray[np.floating]]

# Names of both factors, whether they are stored transposed, path of the module.
WRITERS = {
    "peft": (*(f"base_model.model.{Q}.lora_{side}.weight" for side in "AB"), False, Q),
    "state dict": (f"{Q}.lora_A.default.weight", f"{Q}.lora_B.default.weight", False, Q),
    "named": (f"{Q}.lora_A.mine.weight", f"{Q}.lora_B.mine.weight", False, Q),
    "loralib": (f"{Q}.lora_A", f"{Q}.lora_B", False, Q),
    "torchtune": (f"{Q}.lora_a.weight", f"{Q}.lora_b.weight", False, Q),
    "mlx": (f"{Q}.lora_a", f"{Q}.lora_b", True, Q),
    "keras": (f"{Q}.lora_kernel_a", f"{Q}.lora_kernel_b", True, Q),
    "pico": (f"{Q}.A_lora.weight", f"{Q}.B_lora.weight", False, Q),
    "kohya": (f"{FLAT}_to_q.lora_down.weight", f"{FLAT}_to_q.lora_up.weight", False, None),
    "diffusers": (
        *(f"{UNET}.to_q.lora.{side}.weight" for side in ("down", "up")), False, f"{UNET}.to_q",
    ),
    "processor": (
        *(f"{UNET}.processor.to_q_lora.{side}.weight" for side in ("down", "up")), False,
        f"{UNET}.to_q",
    ),
    "linear layer": (
        *(f"{UNET}.to_q.lora_linear_layer.{side}.weight" for side in ("down", "up")), False,
        f"{UNET}.to_q",
    ),
    "numbered": ("unet:0:down", "unet:0:up", False, "unet:0"),
    "megatron": (
        *(f"decoder.layers.3.linear_proj.adapter.linear_{side}.weight" for side in ("in", "out")),
        False, "decoder.layers.3.linear_proj",
    ),
    "parametrization": (
        *(f"h.0.attn.q_proj.parametrizations.weight.0.lora_{side}" for side in "AB"), False,
        "h.0.attn.q_proj",
    ),
}  # fmt: skip


@pytest.fixture
def factors(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A, (r, in), and B, (out, r)."""
    return rng.normal(size=(RANK, IN)), rng.normal(size=(OUT, RANK))


def read(folder: Path, tensors: Tensors, suffix: str = "safetensors") -> Contents:
    """What is in a file of these tensors."""
    path = folder / f"step-100.{suffix}"
    if suffix == "safetensors":
        save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, path)
        return safetensors_alone.read(path, DEFAULT)
    if suffix == "npz":
        np.savez(path, **tensors)  # type: ignore[arg-type]
        return numpy_archive.read(path, DEFAULT)
    torch.save({n: torch.from_numpy(np.ascontiguousarray(t)) for n, t in tensors.items()}, path)
    return torch_object.read(path, DEFAULT)


def only(contents: Contents) -> Parameter:
    (parameter,) = contents.parameters.values()
    return parameter


def values_of(parameter: Parameter) -> NDArray[np.float64]:
    assert parameter.adapter is not None
    return np.asarray(delta(parameter.adapter).multiplied())


def notes(contents: Contents) -> list[str]:
    return [note.reason for note in contents.notes]


def classes(contents: Contents) -> Counter[str]:
    return Counter(one.kind for one in contents.account)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "npz"])
def test_two_factors_are_one_adapter(
    writer: str,
    suffix: str,
    tmp_path: Path,
    factors: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    a, b, turned, module = WRITERS[writer]
    stored = {a: factors[0].T if turned else factors[0], b: factors[1].T if turned else factors[1]}
    contents = read(tmp_path, stored, suffix)
    parameter = only(contents)
    assert parameter.tensor is None and parameter.shape == (OUT, IN)
    assert module is None or parameter.module == module
    assert values_of(parameter) == pytest.approx(factors[1] @ factors[0])
    assert parameter.adapter is not None and parameter.adapter.scale is None
    assert notes(contents) == ["scale-unknown"] and not contents.skips
    assert classes(contents) == {"part of": 2}
    if module == Q:
        assert (parameter.role, parameter.layer) == ("q", 0)


@pytest.mark.parametrize("shape", [(16, 16), (5, 16), (16, 5)])
def test_shapes_show_how_factors_are_stored(
    shape: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    a, b = rng.normal(size=(2, shape[1])), rng.normal(size=(shape[0], 2))
    for names in (("lora_A", "lora_B"), ("lora_a", "lora_b"), ("lora_down", "lora_up")):
        for one, other in ((a, b), (a.T, b.T), (a.T, b), (a, b.T)):
            contents = read(tmp_path, {f"{Q}.{names[0]}": one, f"{Q}.{names[1]}": other})
            if (one is a) == (other is b):
                assert values_of(only(contents)) == pytest.approx(b @ a)
            else:  # no two sides of the product are meant by it
                assert not contents.parameters or values_of(only(contents)).shape == shape


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5,)])
def test_the_down_factor_of_a_convolution_keeps_its_kernel(
    kernel: tuple[int, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    down, up = (
        rng.normal(size=(RANK, IN, *kernel)),
        rng.normal(size=(OUT, RANK, *(1,) * len(kernel))),
    )
    name = "lora_unet_down_blocks_0_resnets_1_conv1"
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    tensors |= {f"{name}.alpha": np.array(6.0)}
    contents = read(tmp_path, tensors)
    expected = 2.0 * up.reshape(OUT, RANK) @ down.reshape(RANK, -1)
    assert values_of(only(contents)) == pytest.approx(expected)
    assert not contents.notes and classes(contents) == {"part of": 3}


@pytest.mark.parametrize(
    ("flat", "path", "role"),
    [
        ("lora_te_text_model_encoder_layers_11_self_attn_q_proj", "layers.11.", "q"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "layers.0.", "up"),
        ("lora_te2_text_model_encoder_layers_3_self_attn_out_proj", "layers.3.", "o"),
        ("lora_unet_mid_block_attentions_0_proj_in", "attentions.0.", "other"),
        ("lora_transformer_single_transformer_blocks_7_attn_to_q", "blocks.7.", None),
    ],
)
def test_dots_that_were_turned_into_underscores_are_read_again(
    flat: str,
    path: str,
    role: str | None,
    tmp_path: Path,
    factors: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    tensors = {f"{flat}.lora_down.weight": factors[0], f"{flat}.lora_up.weight": factors[1]}
    parameter = only(read(tmp_path, tensors))
    assert path in parameter.module and (role is None or parameter.role == role)


def test_each_of_several_text_models_has_layers_of_its_own(
    tmp_path: Path, factors: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    tensors = {
        f"lora_te{model}_text_model_encoder_layers_{layer}_mlp_fc1.lora_{side}.weight": factor
        for model in (1, 2)
        for layer in range(3)
        for side, factor in zip(("down", "up"), factors, strict=True)
    }
    found = read(tmp_path, tensors).parameters.values()
    assert [p.layer for p in sorted(found, key=lambda one: one.name)] == [0, 1, 2] * 2


ALPHA = {f"{Q}.alpha": np.array(6.0)}
DIFFUSERS = json.dumps({"model.r": 3, "model.lora_alpha": 6})
# A tensor, adapter_config.json, the header, and the scale for rank 3.
SCALES = {
    "alpha": (ALPHA, {}, {}, 2.0),
    "peft": ({}, {"peft_type": "LORA", "lora_alpha": 6, "r": RANK}, {}, 2.0),
    "rslora": ({}, {"lora_alpha": 6, "use_rslora": True}, {}, 6 / 3**0.5),
    "mlx": ({}, {"lora_parameters": {"rank": RANK, "scale": 20.0}}, {}, 20.0),
    "mlx of old": ({}, {"lora_parameters": {"scale": 5, "alpha": 6}}, {}, 10.0),
    "header": ({}, {}, {"lora_alpha": "6", "r": "3"}, 2.0),
    "header of kohya": ({}, {}, {"ss_network_alpha": "6.0", "ss_network_dim": "3"}, 2.0),
    "header of diffusers": ({}, {}, {"lora_adapter_metadata": DIFFUSERS}, 2.0),
    "tensor before file": (ALPHA, {"lora_alpha": 100}, {}, 2.0),
    "nothing": ({}, {"r": 3}, {"format": "pt", "ss_network_alpha": "None"}, None),
    "nonsense": ({}, {"lora_alpha": "many"}, {}, None),
}


@pytest.mark.parametrize("source", SCALES)
def test_a_tensor_a_file_or_a_header_states_the_scale(
    source: str,
    tmp_path: Path,
    factors: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    tensors, entries, header, scale = SCALES[source]
    if entries:
        (tmp_path / "adapter_config.json").write_text(json.dumps(entries))
    named = {f"{Q}.lora_A.weight": factors[0], f"{Q}.lora_B.weight": factors[1], **tensors}
    save_file(named, tmp_path / "step-100.safetensors", metadata=header)
    contents = safetensors_alone.read(tmp_path / "step-100.safetensors", DEFAULT)
    adapter = only(contents).adapter
    assert adapter is not None and adapter.scale == (
        None if scale is None else pytest.approx(scale)
    )
    assert notes(contents) == ([] if scale is not None else ["scale-unknown"])
    assert [s.reason for s in contents.skips] == (
        ["adapter-config"] if source == "nonsense" else []
    )


@pytest.mark.parametrize(
    "holder", ["base_layer.weight", "weight", "linear.weight", "to_wrap.weight"]
)
@pytest.mark.parametrize("scale", [2.0, None])
def test_a_weight_is_used_with_its_adapter_if_the_scale_is_known(
    holder: str,
    scale: float | None,
    tmp_path: Path,
    rng: np.random.Generator,
    factors: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    weight = rng.normal(size=(OUT, IN))
    tensors = {f"{Q}.{holder}": weight, f"{Q}.lora_A.x.weight": factors[0]}
    tensors |= {f"{Q}.lora_B.x.weight": factors[1]}
    if scale is not None:
        (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": scale * RANK}))
    contents = read(tmp_path, tensors, "pt")
    parameter = only(contents)
    assert parameter.tensor is not None and parameter.role == "q" and parameter.module == Q
    moment = Moment(contents)
    (component,) = AT_CHECKPOINTS["weight"](moment)
    matrix = component.recipe.read()
    expected = weight if scale is None else weight + scale * factors[1] @ factors[0]
    assert component.kind == ("base" if scale is None else "weight")
    assert getattr(matrix, "values", None) == pytest.approx(expected)
    assert [c.kind for c in AT_CHECKPOINTS["adapter"](moment)] == ["adapter"]


def test_an_adapter_on_a_quantised_weight_stands_alone(
    tmp_path: Path, factors: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    tensors = {
        f"{Q}.base_layer.weight": np.ones((96, 1), np.uint8),
        f"{Q}.base_layer.weight.absmax": np.ones(4, np.float32),
        f"{Q}.base_layer.weight.quant_map": np.ones(16, np.float32),
        f"{Q}.lora_A.default.weight": factors[0],
        f"{Q}.lora_B.default.weight": factors[1],
    }
    contents = read(tmp_path, tensors)  # type: ignore[arg-type]
    parameter = only(contents)
    assert parameter.tensor is None and parameter.name == f"{Q}.weight"
    skipped = {(s.tensor, s.reason) for s in contents.skips}
    assert (f"{Q}.base_layer.weight", "quantised") in skipped


@pytest.mark.parametrize("dtype", [np.float16, np.int64, np.int32])
def test_the_tensor_of_a_scale_may_hold_a_whole_number(
    dtype: type, tmp_path: Path, factors: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    tensors = {f"{Q}.lora_down.weight": factors[0], f"{Q}.lora_up.weight": factors[1]}
    contents = read(tmp_path, {**tensors, f"{Q}.alpha": np.array(6, dtype)})
    assert values_of(only(contents)) == pytest.approx(2 * factors[1] @ factors[0])
    assert not contents.notes and classes(contents) == {"part of": 3}


@pytest.mark.parametrize("end", ["diff", "oft_blocks", "a1.weight", "lora_mid.weight"])
def test_other_changes_of_a_flattened_module_are_not_weights(end: str, tmp_path: Path) -> None:
    contents = read(tmp_path, {f"{FLAT}_to_q.{end}": np.ones((6, 4))})
    assert not contents.parameters and len(contents.skips) == 1
    assert classes(contents) == {"not understood": 1}


def test_gradients_of_factors_are_not_gradients_of_matrices(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_model(tmp_path, random_weights(rng))
    pair = {f"{Q}.lora_A.weight": np.ones((2, 16)), f"{Q}.lora_B.weight": np.ones((16, 2))}
    save_file({**pair, f"{Q}.weight": np.ones((16, 16))}, tmp_path / "gradients.safetensors")
    contents = huggingface.read(tmp_path, DEFAULT)
    assert set(contents.gradients) == {f"{Q}.weight"} and not contents.skips
    assert classes(contents)["part of"] == 2


def test_saved_modules_take_the_place_of_the_original(
    tmp_path: Path, factors: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> None:
    trained, old = np.full((6, 4), 2.0), np.ones((6, 4))
    tensors = {
        f"{Q}.lora_A.default.weight": factors[0],
        f"{Q}.lora_B.default.weight": factors[1],
        "lm_head.modules_to_save.default.weight": trained,
        "lm_head.original_module.weight": old,
    }
    contents = read(tmp_path, tensors)
    head = contents.parameters["lm_head.weight"]
    assert head.tensor is not None and (head.tensor.read() == trained).all()
    assert set(contents.parameters) == {f"{Q}.weight", "lm_head.weight"} and not contents.skips
    assert classes(contents) == {"part of": 2, "matrix": 1, "no linear map": 1}


def test_factors_of_an_embedding_are_stored_the_other_way_round(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    a, b = rng.normal(size=(RANK, 40)), rng.normal(size=(16, RANK))
    place = "model.embed_tokens"
    contents = read(tmp_path, {f"{place}.lora_embedding_A": a, f"{place}.lora_embedding_B": b})
    parameter = only(contents)
    assert parameter.role == "embed" and parameter.shape == (40, 16)
    assert values_of(parameter) == pytest.approx((b @ a).T)


@pytest.mark.parametrize(
    "missing", ["lora_A.weight", "lora_B.weight", "lora_down.weight", "lora_b"]
)
def test_half_a_pair_is_named_and_not_a_weight(missing: str, tmp_path: Path) -> None:
    there = {"lora_A": "lora_B", "lora_B": "lora_A", "lora_down": "lora_up", "lora_b": "lora_a"}
    end = missing.replace(missing.split(".")[0], there[missing.split(".")[0]])
    contents = read(tmp_path, {f"{Q}.{end}": np.ones((4, 16)), "other.weight": np.ones((4, 4))})
    assert set(contents.parameters) == {"other.weight"}
    assert [(s.tensor, s.reason) for s in contents.skips] == [(Q, "adapter-incomplete")]
    assert classes(contents) == {"not understood": 1, "matrix": 1}


def test_several_pairs_by_number_are_not_taken_for_one(tmp_path: Path) -> None:
    tensors = {
        f"{Q}.lora_{side}.{i}.weight": np.ones((RANK, IN) if side == "A" else (OUT, RANK))
        for side in "AB"
        for i in range(3)
    }
    contents = read(tmp_path, tensors)
    assert not contents.parameters
    assert [(s.tensor, s.reason) for s in contents.skips] == [(Q, "several-factors")]
    assert classes(contents) == {"not understood": 6}


def test_low_rank_parts_of_a_quantised_weight_are_not_adapters(tmp_path: Path) -> None:
    tensors = {
        f"{Q}.qweight": np.ones((64, 16), np.int8),
        f"{Q}.wscales": np.ones((2, 64), np.float16),
        f"{Q}.lora_down": np.ones((32, 8), np.float16),
        f"{Q}.lora_up": np.ones((64, 8), np.float16),
    }
    contents = read(tmp_path, tensors)  # type: ignore[arg-type]
    assert not [p for p in contents.parameters.values() if p.adapter]


LOHA = {"hada_w1_a": (OUT, 2), "hada_w1_b": (2, IN), "hada_w2_a": (OUT, 2), "hada_w2_b": (2, IN)}
LOKR = {"lokr_w1": (4, 4), "lokr_w2_a": (6, 2), "lokr_w2_b": (2, 4)}


@pytest.mark.parametrize("alpha", [None, 6.0])
@pytest.mark.parametrize("shapes", [LOHA, LOKR])
def test_lycoris_files_state_the_scale_in_a_tensor(
    shapes: dict[str, tuple[int, int]],
    alpha: float | None,
    tmp_path: Path,
    rng: np.random.Generator,
) -> None:
    parts = {end: rng.normal(size=shape) for end, shape in shapes.items()}
    module = f"{FLAT}_to_q"
    tensors = {f"{module}.{end}": value for end, value in parts.items()}
    tensors |= {} if alpha is None else {f"{module}.alpha": np.array(alpha)}
    contents = read(tmp_path, tensors)
    parameter = only(contents)
    w = list(parts.values())
    product = (w[0] @ w[1]) * (w[2] @ w[3]) if len(w) == 4 else np.kron(w[0], w[1] @ w[2])
    scale = 1.0 if alpha is None else alpha / 2
    assert values_of(parameter) == pytest.approx(scale * product)
    assert notes(contents) == (["scale-unknown"] if alpha is None else [])
    assert classes(contents) == {"part of": len(tensors)}


def test_two_whole_matrices_of_lycoris_have_the_scale_one(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    w1, w2 = rng.normal(size=(4, 4)), rng.normal(size=(6, 4))
    tensors = {f"{Q}.lokr_w1": w1, f"{Q}.lokr_w2": w2, f"{Q}.alpha": np.array(9e9)}
    contents = read(tmp_path, tensors)
    assert values_of(only(contents)) == pytest.approx(np.kron(w1, w2)) and not contents.notes


def test_magnitudes_of_any_writer_rescale_the_weight(
    tmp_path: Path,
    rng: np.random.Generator,
    factors: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    weight, m = rng.normal(size=(OUT, IN)), rng.uniform(1, 2, size=OUT)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"scale": 2.0}}))
    tensors = {f"{Q}.lora_a": factors[0].T, f"{Q}.lora_b": factors[1].T, f"{Q}.m": m}
    contents = read(tmp_path, {**tensors, f"{Q}.linear.weight": weight})
    parameter = only(contents)
    added = weight + 2 * factors[1] @ factors[0]
    expected = m[:, None] * added / np.linalg.norm(added, axis=1, keepdims=True)
    assert adapted(Formed.read(weight, "float64"), parameter.adapter).values == pytest.approx(
        expected
    )
    assert notes(read(tmp_path, tensors)) == ["dora"]


def test_a_table_of_the_users_own_is_followed(tmp_path: Path, rng: np.random.Generator) -> None:
    family = parsed(
        {
            "name": "mine",
            "roles": {"mix": "o"},
            "factors": {
                "low": {
                    "left": "U", "right": "V", "transposed": ["right"], "makes": "weight",
                    "scale": 1,
                },
                "beside": {"left": "up", "right": "down", "scaling": "gain"},
            },
        },
        "mine.toml",
    )  # fmt: skip
    u, v = rng.normal(size=(OUT, RANK)), rng.normal(size=(IN, RANK))
    weight, up, down = rng.normal(size=(9, 8)), rng.normal(size=(9, 2)), rng.normal(size=(2, 8))
    tensors = {
        "blocks.1.mix.U": u, "blocks.1.mix.V": v,
        "head.weight": weight, "head.up": up, "head.down": down, "head.gain": np.array([0.5]),
    }  # fmt: skip
    path = tmp_path / "step-1.safetensors"
    save_file(tensors, path)
    contents = safetensors_alone.read(path, Options(family=family))
    mix, head = contents.parameters["blocks.1.mix.weight"], contents.parameters["head.weight"]
    assert mix.tensor is not None and mix.role == "o" and mix.adapter is None
    assert mix.tensor.read() == pytest.approx(u @ v.T)
    assert head.tensor is not None and head.adapter is not None and head.adapter.scale == 0.5
    assert not contents.skips and not contents.notes


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (7, "must be a table"),
        ({"left": "a"}, "right must be text"),
        ({"left": "a", "right": "b", "middle": "c"}, "unknown entries: middle"),
        ({"left": "a", "right": "b", "makes": "bias"}, "makes is change or weight"),
        ({"left": "a", "right": "b", "transposed": ["both"]}, "transposed lists left and right"),
        ({"left": "a", "right": "b", "scale": "alpha"}, "scale must be a number"),
        ({"left": "a", "right": "b", "scale": 10**400}, "scale must be a number"),
        ({"left": "a", "right": "b", "scale": float("nan")}, "scale must be a number"),
        ({"left": "a", "right": "b", "sparse": ["x"]}, "positions and values"),
        ({"left": "a", "right": "b", "spare": "x"}, "spare must be a list"),
    ],
)
def test_a_table_that_is_none_is_refused(entry: object, message: str) -> None:
    with pytest.raises(RankscopeError, match=message):
        parsed({"name": "mine", "factors": {"x": entry}}, "mine.toml")


BERT, SQUARE = "roberta.encoder.layer.0.attention", (16, 16)
T5 = "encoder.block.0.layer"
# Modules with the shapes of their deltas, the name of the base, roles.
ADAPTED = {
    "gpt2": ({"transformer.h.0.attn.c_attn": (48, 16)}, "gpt2", {"q", "k", "v"}),
    "gpt2 without a name": (
        {"h.0.attn.c_attn": (48, 16), "h.0.mlp.c_fc": (64, 16)}, "", {"q", "k", "v", "up"},
    ),
    "roberta": (
        {f"{BERT}.self.query": SQUARE, f"{BERT}.output.dense": SQUARE}, "roberta-base", {"q", "o"},
    ),
    "t5": (
        {f"{T5}.0.SelfAttention.v": SQUARE, f"{T5}.1.DenseReluDense.wo": (16, 32)},
        "google-t5/t5-small", {"v", "down"},
    ),
    "opt": ({"model.decoder.layers.0.self_attn.out_proj": SQUARE}, "facebook/opt-125m", {"o"}),
    "unknown": ({"blocks.0.thing": SQUARE}, "who/knows", {"other"}),
}  # fmt: skip


@pytest.mark.parametrize("base", ADAPTED)
def test_adapters_alone_have_the_roles_of_their_model(
    base: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    modules, named, roles = ADAPTED[base]
    tensors = {
        f"base_model.model.{module}.lora_{side}.weight": rng.normal(
            size=(2, shape[1]) if side == "A" else (shape[0], 2)
        )
        for module, shape in modules.items()
        for side in "AB"
    }
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 4, "base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    contents = open_run(tmp_path)[5].contents
    assert {p.role for p in contents.parameters.values()} == roles and not contents.skips


def test_ordinary_models_have_no_names_of_factors() -> None:
    """No table's end is the end of a role, so that no weight of a family is taken for a factor."""
    for family in families().values():
        for table in (*family.factors,):
            assert table.left not in family.roles and table.right not in family.roles
    assert family_of({}, {}).name == "generic"


def test_one_adapter_over_parts_of_a_fused_weight_is_named(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """loralib's MergedLinear: the rank of A is that of all parts together."""
    name = "transformer.h.0.attn.c_attn"
    tensors = {f"{name}.lora_A": rng.normal(size=(2 * RANK, IN)),
               f"{name}.lora_B": rng.normal(size=(2 * OUT, RANK))}  # fmt: skip
    contents = read(tmp_path, tensors)
    (skip,) = contents.skips
    assert "MergedLinear" in skip.message and not contents.parameters


def test_no_name_is_taken_apart_where_none_ends_like_a_factor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model has tens of thousands of experts, and this is asked of each."""
    monkeypatch.setattr(grouping, "_placed", lambda *_: pytest.fail("was asked"))
    tables = grouping.tables_of(DEFAULT)
    weight: Tensor = StoredTensor("/nowhere", "weight", "float32", (4, 4), 0)
    names = [f"layers.0.experts.{i}.{one}_proj.weight" for i in "01" for one in ("gate", "down")]
    assert not grouping.cells_of(dict.fromkeys(names, weight), tables)
    with pytest.raises(pytest.fail.Exception):
        grouping.cells_of(dict.fromkeys(["layers.0.attn.gk_proj.1.weight"], weight), tables)
