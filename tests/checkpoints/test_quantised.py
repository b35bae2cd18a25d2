import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

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
    """Tensors of which nothing can be read: there is no file."""
    return {
        n: StoredTensor("/nowhere", n, dtype, shape, 0) for n, (dtype, shape) in tensors.items()
    }


def quantised_by(method: str) -> dict[str, object]:
    return {"model_type": "llama", "quantization_config": {"quant_method": method}}


@pytest.mark.parametrize("is_stated", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantised_weight_is_one_skip_and_its_companions_are_silent(
    scheme: str, is_stated: bool
) -> None:
    method, weight, tensors = SCHEMES[scheme]
    config = quantised_by(method) if is_stated else {}
    told = without_quantised(stored(PLAIN | tensors), config)
    plain, skips = told.tensors, told.skips
    assert set(plain) - {f"{LAYER}.bias"} == set(PLAIN)
    assert [(skip.tensor, skip.reason) for skip in skips] == [(weight, "quantised")]
    assert skips[0].message == f"is quantised by {scheme}: give it dequantised"


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
def test_the_config_names_a_scheme_whose_tensors_are_called_like_others(
    method: str, dtype: str, end: str, shape: tuple[int, ...], named: str
) -> None:
    tensors = {f"{LAYER}.weight": (dtype, (64, 128)), f"{LAYER}.{end}": ("float32", shape)}
    told = without_quantised(stored(PLAIN | tensors), quantised_by(method))
    plain, skips = told.tensors, told.skips
    assert set(plain) - {f"{LAYER}.bias"} == set(PLAIN)
    assert [skip.message for skip in skips] == [f"is quantised by {named}: give it dequantised"]


def test_the_config_knows_better_than_the_names() -> None:
    without_order = {n: t for n, t in SCHEMES["GPTQ"][2].items() if not n.endswith("g_idx")}
    for method, named in (("gptq", "GPTQ"), ("auto-round", "auto-round"), ("", "AWQ")):
        skips = without_quantised(stored(without_order), quantised_by(method)).skips
        assert [named in skip.message for skip in skips] == [True]


@pytest.mark.parametrize("storage", ["uint8", "bfloat16", "float32"])
def test_four_bits_are_told_in_whatever_format_they_are_kept(storage: str) -> None:
    tensors = FOUR_BITS | {f"{LAYER}.weight": (storage, (1024, 1))}
    told = without_quantised(stored(tensors), {})
    plain, skips = told.tensors, told.skips
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
    told = without_quantised(stored(tensors), {})
    plain, skips = told.tensors, told.skips
    assert [skip.tensor for skip in skips] == [f"{EXPERTS}.gate_up_proj"]
    assert set(tensors) - set(plain) == {
        f"{EXPERTS}.gate_up_proj",
        f"{EXPERTS}.gate_up_proj{scale}",
        f"{EXPERTS}.gate_up_proj_activation_scale",
    }


def test_a_name_that_begins_like_a_quantised_module_is_no_companion() -> None:
    tensors: Tensors = {
        "model.layers.0.mlp.gate.weight": ("float8_e4m3", (64, 64)),
        "model.layers.0.mlp.gate.weight_scale_inv": ("float32", (1, 1)),
        "model.layers.0.mlp.gate_proj.weight": ("bfloat16", (64, 64)),
        "model.layers.0.self_attn.k_scale": ("float32", ()),
        "model.layers.0.self_attn.k_proj.weight": ("bfloat16", (64, 64)),
    }
    told = without_quantised(stored(tensors), quantised_by("fp8"))
    plain, skips = told.tensors, told.skips
    assert set(plain) == set(list(tensors)[2:]) and len(skips) == 1


def test_a_plain_model_is_plain_whatever_it_calls_its_tensors() -> None:
    tensors: Tensors = PLAIN | {
        "model.blocks.0.weight_scale": ("float32", (4, 4)),
        "model.blocks.0.weight": ("float32", (4, 4)),
        "model.blocks.0.scales": ("float32", (4, 4)),
        "model.layer_blocks": ("float32", (4, 4)),
        "model.attention.bias": ("bool", (1, 1, 8, 8)),
    }
    told = without_quantised(stored(tensors), {})
    plain, skips = told.tensors, told.skips
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
    told = without_quantised(stored(PLAIN), config)
    plain, skips = told.tensors, told.skips
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


def test_gpt_oss_as_it_is_released_has_its_plain_weights_and_no_biases(
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
