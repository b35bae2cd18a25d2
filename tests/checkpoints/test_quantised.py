"""Quantised weights are skipped by scheme, and their companions with them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.quantised import without_quantised
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.tensors import StoredTensor

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # name → format and shape

LAYER = "model.layers.0.mlp.down_proj"
EXPERTS = "model.layers.0.mlp.experts"
PLAIN: Tensors = {
    "model.embed_tokens.weight": ("float32", (8, 64)),
    "model.layers.0.self_attn.q_proj.weight": ("bfloat16", (64, 64)),
    "model.layers.0.input_layernorm.weight": ("float32", (64,)),
}
FOUR_BITS: Tensors = {
    f"{LAYER}.weight": ("uint8", (4096, 1)),
    f"{LAYER}.weight.absmax": ("uint8", (128,)),
    f"{LAYER}.weight.quant_map": ("float32", (16,)),
    f"{LAYER}.weight.nested_absmax": ("float32", (1,)),
    f"{LAYER}.weight.nested_quant_map": ("float32", (256,)),
    f"{LAYER}.weight.quant_state.bitsandbytes__nf4": ("uint8", (82,)),
}
SCHEMES: dict[str, tuple[str, str, Tensors]] = {  # name → quant_method, the weight, its tensors
    "bitsandbytes (4 bits)": ("bitsandbytes", f"{LAYER}.weight", FOUR_BITS),
    "bitsandbytes (8 bits)": (
        "bitsandbytes",
        f"{LAYER}.weight",
        {
            f"{LAYER}.weight": ("int8", (64, 128)),
            f"{LAYER}.SCB": ("float32", (64,)),
            f"{LAYER}.weight_format": ("uint8", ()),
        },
    ),
    "GPTQ": (
        "gptq",
        f"{LAYER}.qweight",
        {
            f"{LAYER}.qweight": ("int32", (16, 64)),
            f"{LAYER}.qzeros": ("int32", (4, 8)),
            f"{LAYER}.scales": ("float16", (4, 64)),
            f"{LAYER}.g_idx": ("int32", (128,)),
            f"{LAYER}.bias": ("float16", (64,)),
        },
    ),
    "AWQ": (
        "awq",
        f"{LAYER}.qweight",
        {
            f"{LAYER}.qweight": ("int32", (128, 8)),
            f"{LAYER}.qzeros": ("int32", (4, 8)),
            f"{LAYER}.scales": ("float16", (4, 64)),
        },
    ),
    "FP8 in blocks": (
        "fp8",
        f"{LAYER}.weight",
        {
            f"{LAYER}.weight": ("float8_e4m3", (256, 256)),
            f"{LAYER}.weight_scale_inv": ("float32", (2, 2)),
        },
    ),
    "compressed-tensors": (
        "compressed-tensors",
        f"{LAYER}.weight_packed",
        {
            f"{LAYER}.weight_packed": ("int32", (64, 16)),
            f"{LAYER}.weight_scale": ("bfloat16", (64, 4)),
            f"{LAYER}.weight_zero_point": ("int32", (8, 4)),
            f"{LAYER}.weight_shape": ("int64", (2,)),
            f"{LAYER}.weight_g_idx": ("int32", (128,)),
            f"{LAYER}.input_global_scale": ("float32", (1,)),
        },
    ),
    "MXFP4": (
        "mxfp4",
        f"{EXPERTS}.gate_up_proj_blocks",
        {
            f"{EXPERTS}.gate_up_proj_blocks": ("uint8", (2, 64, 2, 16)),
            f"{EXPERTS}.gate_up_proj_scales": ("uint8", (2, 64, 2)),
        },
    ),
    "HQQ": (
        "hqq",
        f"{LAYER}.W_q",
        {
            f"{LAYER}.W_q": ("uint8", (64, 64)),
            f"{LAYER}.scale": ("float16", (128, 1)),
            f"{LAYER}.zero": ("float16", (128, 2)),
        },
    ),
    "AQLM": (
        "aqlm",
        f"{LAYER}.codes",
        {
            f"{LAYER}.codes": ("int16", (64, 16, 1)),
            f"{LAYER}.codebooks": ("float16", (1, 256, 1, 8)),
            f"{LAYER}.scales": ("float16", (64, 1, 1, 1)),
        },
    ),
    "quanto": (
        "quanto",
        f"{LAYER}.weight._data",
        {
            f"{LAYER}.weight._data": ("int8", (64, 128)),
            f"{LAYER}.weight._scale": ("bfloat16", (64, 2)),
            f"{LAYER}.input_scale": ("bfloat16", ()),
        },
    ),
    "quanto (4 bits)": (
        "quanto",
        f"{LAYER}.weight._data._data",
        {
            f"{LAYER}.weight._data._data": ("uint8", (64, 64)),
            f"{LAYER}.weight._scale": ("bfloat16", (64, 2)),
            f"{LAYER}.weight._shift": ("bfloat16", (64, 2)),
            f"{LAYER}.input_scale": ("bfloat16", ()),
        },
    ),
    "torchao": (
        "torchao",
        f"{LAYER}._weight_qdata",
        {
            f"{LAYER}._weight_qdata": ("int8", (64, 128)),
            f"{LAYER}._weight_scale": ("bfloat16", (64, 4)),
            f"{LAYER}._weight_zero_point": ("bfloat16", (64, 4)),
        },
    ),
}


def stored(tensors: Tensors) -> dict[str, StoredTensor]:
    """Tensors that cannot be read: there is no file."""
    return {
        n: StoredTensor("/nowhere", n, dtype, shape, i)
        for i, (n, (dtype, shape)) in enumerate(tensors.items())
    }


def quantised_by(method: str) -> dict[str, object]:
    return {"model_type": "llama", "quantization_config": {"quant_method": method}}


@pytest.mark.parametrize("is_stated", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantised_weight_is_one_skip_without_its_companions(
    scheme: str, is_stated: bool
) -> None:
    method, weight, tensors = SCHEMES[scheme]
    config = quantised_by(method) if is_stated else {}
    rest = without_quantised(stored(PLAIN | tensors), config)
    plain, skips = rest.tensors, rest.skips
    assert set(plain) - {f"{LAYER}.bias"} == set(PLAIN)
    assert [(skip.tensor, skip.reason) for skip in skips] == [(weight, "quantised")]
    assert skips[0].message == f"is quantised by {scheme}: give it dequantised"


UP = "layers.0.mlp.up_proj"
UNSTATED: dict[str, tuple[str, str, Tensors]] = {  # no word in the config: scheme, weight, tensors
    "mlx": ("MLX", f"{UP}.weight", {
        f"{UP}.weight": ("uint32", (64, 16)), f"{UP}.scales": ("float16", (64, 2)),
        f"{UP}.biases": ("float16", (64, 2))}),
    "mlx-mxfp4": ("MLX", f"{UP}.weight", {
        f"{UP}.weight": ("uint32", (64, 16)), f"{UP}.scales": ("uint8", (64, 4))}),
    "comfy": ("scaled FP8", f"{UP}.weight", {
        f"{UP}.weight": ("float8_e4m3", (64, 32)), f"{UP}.scale_weight": ("float32", ()),
        "scaled_fp8": ("float8_e4m3", (2,))}),
    "nvfp4": ("NVFP4", f"{UP}.weight", {
        f"{UP}.weight": ("uint8", (64, 16)), f"{UP}.weight_scale": ("float8_e4m3", (64, 2)),
        f"{UP}.weight_scale_2": ("float32", ()), f"{UP}.input_scale": ("float32", ())}),
    "svdquant": ("SVDQuant", f"{UP}.qweight", {
        f"{UP}.qweight": ("int8", (64, 16)), f"{UP}.wscales": ("float16", (2, 64)),
        f"{UP}.wzeros": ("float16", (2, 64)), f"{UP}.smooth_factor": ("float16", (32,)),
        f"{UP}.lora_down": ("float16", (32, 8)), f"{UP}.lora_up": ("float16", (64, 8))}),
    "exl2": ("EXL2", f"{UP}.q_weight", {
        f"{UP}.q_weight": ("int32", (8, 64)), f"{UP}.q_scale": ("int32", (2, 8)),
        f"{UP}.q_scale_max": ("float16", (2,)), f"{UP}.q_groups": ("int16", (4,))}),
    "quip": ("QuIP#", f"{UP}.Qidxs", {
        f"{UP}.Qidxs": ("int16", (64, 4)), f"{UP}.SU": ("float16", (32,)),
        f"{UP}.SV": ("float16", (64,)), f"{UP}.codebook_id": ("int64", ())}),
    "vptq": ("VPTQ", f"{UP}.indices", {
        f"{UP}.indices": ("int32", (1, 8, 64)), f"{UP}.centroids.weight": ("float16", (2, 512)),
        f"{UP}.res_centroids.weight": ("float16", (2, 512)),
        f"{UP}.weight_scale": ("float16", (32,))}),
    "marlin": ("Marlin", f"{UP}.B", {
        f"{UP}.B": ("int32", (2, 128)), f"{UP}.s": ("float16", (2, 64))}),
    "scales": ("scaled int8", f"{UP}.weight", {
        f"{UP}.weight": ("int8", (64, 32)), f"{UP}.scales": ("float16", (64, 4))}),
    "scale": ("scaled int8", f"{UP}.weight", {
        f"{UP}.weight": ("int8", (64, 32)), f"{UP}.scale": ("float16", (64, 2))}),
    "of no name": ("unknown scheme (uint8", f"{UP}.codes_4bit", {
        f"{UP}.codes_4bit": ("uint8", (64, 16)), f"{UP}.steps": ("float32", (64, 2)),
        f"{UP}.offsets": ("bfloat16", (64, 2)), f"{UP}.low": ("float16", (32, 8))}),
    "in a container": ("unknown scheme (int16", "blocks.0.wq", {
        "blocks.0.wq": ("int16", (64, 16)), "blocks.0.wq_steps": ("float32", (64, 2)),
        "blocks.0.wq_steps_2": ("float32", (4,))}),
}  # fmt: skip


@pytest.mark.parametrize("scheme", UNSTATED)
def test_companions_of_packed_numbers_are_part_of_them(scheme: str) -> None:
    named, weight, tensors = UNSTATED[scheme]
    bias = f"{weight.rpartition('.')[0]}.bias"
    contents = contents_of("any", stored(PLAIN | tensors | {bias: ("float16", (64,))}), {}, DEFAULT)
    assert set(contents.parameters) == {n for n, (_, s) in PLAIN.items() if len(s) == 2}
    assert [(skip.tensor, skip.reason) for skip in contents.skips] == [(weight, "quantised")]
    assert named in contents.skips[0].message
    found = {one.tensor: one for one in contents.account}
    assert found[weight].kind == "not understood" and found[bias].kind == "no linear map"
    companions = set(tensors) - {weight, "scaled_fp8"}
    assert {found[name].kind for name in companions} == {"part of"}
    assert {found[name].reason for name in companions} == {f"the quantised {weight}"}


def test_mlx_says_its_bits_in_the_config() -> None:
    config = {"quantization": {"group_size": 64, "bits": 4, "layers.0.lm_head": {"bits": 8}}}
    tensors: Tensors = {}
    for module in ("layers.0.q", "layers.0.lm_head"):
        tensors |= {
            f"{module}.weight": ("uint32", (64, 16)),
            f"{module}.scales": ("float16", (64, 2)),
            f"{module}.biases": ("float16", (64, 2)),
        }
    said = [skip.message for skip in without_quantised(stored(tensors), config).skips]
    assert ["MLX (4 bits)" in said[0], "MLX (8 bits)" in said[1]] == [True, True]


def test_a_plain_matrix_beside_packed_numbers_is_measured() -> None:
    tensors: Tensors = {
        "blocks.0.attn.offsets": ("int32", (49, 49)),
        "blocks.0.attn.wq": ("float32", (96, 32)),
        "blocks.0.mlp.w1": ("int8", (64, 16)),
        "blocks.0.mlp.w1_scales": ("float32", (64, 2)),
        "blocks.0.mlp.w2": ("float32", (64, 16)),
    }
    contents = contents_of("any", stored(tensors), {}, DEFAULT)
    assert set(contents.parameters) == {"blocks.0.attn.wq", "blocks.0.mlp.w2"}


@pytest.mark.parametrize(
    ("method", "dtype", "end", "shape", "named"),
    [
        ("compressed-tensors", "float8_e4m3", "weight_scale", (64, 1), "compressed-tensors"),
        ("compressed-tensors", "bfloat16", "weight_scale", (64, 4), "compressed-tensors"),
        ("eetq", "int8", "weight_scales", (64,), "eetq"),
        ("modelopt", "uint8", "weight_scale", (64, 8), "modelopt"),
        ("bitnet", "uint8", "weight_scale", (1,), "bitnet"),
        ("higgs", "int16", "scales", (64, 4), "higgs"),
        ("", "float8_e4m3", "weight_scale", (64, 1), "scaled FP8"),
        ("", "int8", "weight_scale", (64, 2), "scaled int8"),
        ("", "float8_e5m2", "bias", (64,), "FP8"),
    ],
)
def test_the_config_identifies_a_scheme_with_common_names(
    method: str, dtype: str, end: str, shape: tuple[int, ...], named: str
) -> None:
    tensors = {f"{LAYER}.weight": (dtype, (64, 128)), f"{LAYER}.{end}": ("float32", shape)}
    rest = without_quantised(stored(PLAIN | tensors), quantised_by(method))
    plain, skips = rest.tensors, rest.skips
    assert set(plain) - {f"{LAYER}.bias"} == set(PLAIN)
    assert [skip.message for skip in skips] == [f"is quantised by {named}: give it dequantised"]


def test_the_config_overrules_the_names() -> None:
    without_order = {n: t for n, t in SCHEMES["GPTQ"][2].items() if not n.endswith("g_idx")}
    for method, named in (("gptq", "GPTQ"), ("auto-round", "auto-round"), ("", "AWQ")):
        skips = without_quantised(stored(without_order), quantised_by(method)).skips
        assert [named in skip.message for skip in skips] == [True]


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_four_bits_are_recognised_in_any_storage_format(storage: str) -> None:
    tensors = FOUR_BITS | {f"{LAYER}.weight": (storage, (1024, 1))}
    rest = without_quantised(stored(tensors), {})
    plain, skips = rest.tensors, rest.skips
    assert not plain and "bitsandbytes (4 bits)" in skips[0].message


@pytest.mark.parametrize("scale", ["_scale_inv", "_scale"])
def test_stacks_of_quantised_experts_leave_their_neighbours_alone(scale: str) -> None:
    tensors: Tensors = {
        f"{EXPERTS}.gate_up_proj": ("float8_e4m3", (4, 256, 128)),
        f"{EXPERTS}.gate_up_proj{scale}": ("float32", (4, 2, 1)),
        f"{EXPERTS}.gate_up_proj_activation_scale": ("float32", (4, 2)),
        f"{EXPERTS}.gate_up_proj_bias": ("float32", (4, 256)),
        f"{EXPERTS}.down_proj": ("bfloat16", (4, 128, 128)),
        "model.layers.0.mlp.gate.weight": ("float32", (4, 128)),
        "model.layers.0.mlp.gate.e_score_correction_bias": ("float32", (4,)),
    }
    rest = without_quantised(stored(tensors), {})
    plain, skips = rest.tensors, rest.skips
    assert [skip.tensor for skip in skips] == [f"{EXPERTS}.gate_up_proj"]
    assert set(tensors) - set(plain) == {
        f"{EXPERTS}.gate_up_proj",
        f"{EXPERTS}.gate_up_proj{scale}",
        f"{EXPERTS}.gate_up_proj_activation_scale",
    }


def test_a_similar_name_is_not_a_companion() -> None:
    tensors: Tensors = {
        "model.layers.0.mlp.gate.weight": ("float8_e4m3", (64, 64)),
        "model.layers.0.mlp.gate.weight_scale_inv": ("float32", (1, 1)),
        "model.layers.0.mlp.gate_proj.weight": ("bfloat16", (64, 64)),
        "model.layers.0.self_attn.k_scale": ("float32", ()),
        "model.layers.0.self_attn.k_proj.weight": ("bfloat16", (64, 64)),
    }
    rest = without_quantised(stored(tensors), quantised_by("fp8"))
    plain, skips = rest.tensors, rest.skips
    assert set(plain) == set(list(tensors)[2:]) and len(skips) == 1


def test_a_plain_model_is_plain_whatever_it_calls_its_tensors() -> None:
    tensors: Tensors = PLAIN | {
        "model.blocks.0.weight_scale": ("float32", (4, 4)),
        "model.blocks.0.weight": ("float32", (4, 4)),
        "model.blocks.0.scales": ("float32", (4, 4)),
        "model.layer_blocks": ("float32", (4, 4)),
        "model.attention.bias": ("bool", (1, 1, 8, 8)),
    }
    rest = without_quantised(stored(tensors), {})
    plain, skips = rest.tensors, rest.skips
    assert set(plain) == set(tensors) and not skips


@pytest.mark.parametrize(
    "config",
    [
        {"quantization_config": "gptq"},
        {"quantization_config": {"quant_method": ["gptq"]}},
        {"quantization_config": None, "text_config": 3},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_a_config_alone_makes_nothing_quantised(config: dict[str, object]) -> None:
    rest = without_quantised(stored(PLAIN), config)
    plain, skips = rest.tensors, rest.skips
    assert set(plain) == set(PLAIN) and not skips


def read(folder: Path, tensors: dict[str, np.ndarray], config: dict[str, object]) -> Contents:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return huggingface.read(folder, DEFAULT)


def test_plain_weights_beside_quantised_ones_are_analysed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    embed = rng.normal(size=(8, 128)).astype(np.float32)
    tensors = {
        "model.embed_tokens.weight": embed,
        f"{LAYER}.qweight": rng.integers(0, 9, size=(16, 64), dtype=np.int32),
        f"{LAYER}.qzeros": rng.integers(0, 9, size=(4, 8), dtype=np.int32),
        f"{LAYER}.scales": rng.normal(size=(4, 64)).astype(np.float16),
        f"{LAYER}.g_idx": np.arange(128, dtype=np.int32),
        f"{LAYER}.bias": np.zeros(64, np.float16),
    }
    contents = read(tmp_path, tensors, quantised_by("gptq"))
    assert [(skip.tensor, skip.path) for skip in contents.skips] == [
        (f"{LAYER}.qweight", str(tmp_path / "model.safetensors"))
    ]
    assert contents.left_out == (f"{LAYER}.bias",)
    (only,) = contents.parameters.values()
    assert only.role == "embed" and only.tensor is not None and (only.tensor.read() == embed).all()


def test_released_gpt_oss_has_plain_weights_and_no_biases(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    def bytes_of(*shape: int) -> np.ndarray:
        return rng.integers(0, 255, size=shape, dtype=np.uint8)

    layer = "model.layers.0"
    q = rng.normal(size=(32, 64)).astype(np.float32)
    tensors = {
        f"{layer}.self_attn.q_proj.weight": q,
        f"{layer}.self_attn.sinks": np.zeros(4, np.float32),
        f"{layer}.mlp.router.weight": rng.normal(size=(2, 64)).astype(np.float32),
        f"{layer}.mlp.router.bias": np.zeros(2, np.float32),
        f"{layer}.mlp.experts.gate_up_proj_blocks": bytes_of(2, 96, 2, 16),
        f"{layer}.mlp.experts.gate_up_proj_scales": bytes_of(2, 96, 2),
        f"{layer}.mlp.experts.gate_up_proj_bias": np.zeros((2, 96), np.float32),
        f"{layer}.mlp.experts.down_proj_blocks": bytes_of(2, 64, 2, 16),
        f"{layer}.mlp.experts.down_proj_scales": bytes_of(2, 64, 2),
        f"{layer}.mlp.experts.down_proj_bias": np.zeros((2, 64), np.float32),
    }
    config = {"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}
    contents = read(tmp_path, tensors, config)
    assert {p.role for p in contents.parameters.values()} == {"q", "router"}
    assert len(contents.skips) == 2 and all("MXFP4" in s.message for s in contents.skips)
    assert f"{layer}.mlp.experts.gate_up_proj_bias" in contents.left_out


@pytest.mark.parametrize("called", ["weight_quantizer._amax", "weight_fake_quant.scale"])
def test_a_weight_that_the_model_rounds_itself_has_a_note(called: str) -> None:
    tensors: Tensors = PLAIN | {
        f"{LAYER}.weight": ("bfloat16", (64, 256)),
        f"{LAYER}.{called}": ("float32", (64, 2)),
        f"{LAYER}_other.{called}": ("float32", (1,)),  # without a weight
    }
    contents = contents_of("any", stored(tensors), {}, DEFAULT)
    assert f"{LAYER}.{called}" not in contents.parameters and not contents.skips
    assert f"{LAYER}.weight" in contents.parameters
    found = {one.tensor: one for one in contents.account}
    assert found[f"{LAYER}.{called}"].reason == f"what rounds {LAYER}.weight"
    (note,) = contents.notes
    assert note.reason == "rounded-in-use" and f"{LAYER}.weight, one of 1:" in note.message
    plain = contents_of("any", stored(PLAIN), {}, DEFAULT)
    assert not plain.notes
