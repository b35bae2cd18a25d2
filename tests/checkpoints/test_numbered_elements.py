"""Models of transformers in which every number is its own: what is measured is found in the module.

The module says what is a linear map and on which side its inputs are; the file may have other
names, fused tensors and stacks. Each element of a map must be measured once, in a row with the same
output and a column with the same input.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

UNIT = 2.0**-32
USUAL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "vocab_size": 40, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**USUAL, "num_key_value_heads": 2}
V4 = {
    **GROUPED, "head_dim": 16, "q_lora_rank": 24, "o_lora_rank": 8, "o_groups": 2,
    "moe_intermediate_size": 24, "n_routed_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "afmoe": ("AutoModelForCausalLM", {**GROUPED, "num_dense_layers": 2, "head_dim": 8}),
    "aria_text": ("AutoModelForCausalLM", {**GROUPED, "moe_num_experts": 4}),
    "deepseek_v4": ("AutoModelForCausalLM", V4),
    "mobilebert": ("AutoModel", {**USUAL, "embedding_size": 32, "intra_bottleneck_size": 32}),
    "mobilenet_v1": ("AutoModel", {"depth_multiplier": 0.25, "min_depth": 4}),
    "nomic_bert": ("AutoModel", USUAL),
}
every_model = pytest.mark.parametrize("model_type", MODELS)


def numbered(model_type: str, folder: Path) -> tuple[dict[str, tuple[int, Any]], Contents]:
    """The first number and the module of every weight, and what is read of the saved model."""
    auto, entries = MODELS[model_type]
    config = transformers.AutoConfig.for_model(model_type, **entries)
    model = getattr(transformers, auto).from_config(config).double()
    first, held = 1, {}
    for name, values in model.named_parameters():
        with torch.no_grad():
            values.copy_((torch.arange(values.numel()) + first).reshape(values.shape) * UNIT)
        held[name] = first, model.get_submodule(name.rpartition(".")[0])
        first += values.numel()
    model.save_pretrained(folder)
    return held, open_run(folder)[0].contents


@every_model
def test_every_map_is_measured_once_the_right_way_round(model_type: str, tmp_path: Path) -> None:
    held, contents = numbered(model_type, tmp_path)
    read = [np.asarray(p.tensor.read()) / UNIT for p in contents.parameters.values() if p.tensor]
    seen = np.concatenate([matrix.ravel() for matrix in read])
    assert len(np.unique(seen)) == len(seen)
    for name, (first, module) in held.items():
        if type(module) is not torch.nn.Linear or not name.endswith("weight"):
            continue
        end = first + module.weight.numel()
        own = [matrix - first for matrix in read if first <= matrix.min() < end]
        assert sum(matrix.size for matrix in own) == end - first, name
        for matrix in own:
            rows, columns = np.divmod(matrix, module.in_features)
            assert (rows == rows[:, :1]).all() and (columns == columns[:1]).all(), name


def test_experts_that_are_stored_inputs_first_are_cut_into_gate_and_up(tmp_path: Path) -> None:
    held, contents = numbered("aria_text", tmp_path)
    name = "model.layers.1.mlp.experts"
    module = held[f"{name}.gate_up_proj"][1]
    whole = module.gate_up_proj.detach().numpy()[2]  # (inputs, gate and up)
    parts = {
        p.role: np.asarray(p.tensor.read())
        for p in contents.parameters.values()
        if p.tensor and p.layer == 1 and p.expert == 2
    }
    for role, columns in (("gate", slice(48)), ("up", slice(48, None))):
        assert (parts[role] == whole[:, columns].T).all()
    assert (parts["down"] == module.down_proj.detach().numpy()[2].T).all()


def test_the_gate_of_an_attention_is_not_that_of_an_mlp(tmp_path: Path) -> None:
    contents = numbered("afmoe", tmp_path)[1]
    gates = {p.module: p.role for p in contents.parameters.values() if "gate_proj" in p.module}
    assert gates["model.layers.0.self_attn.gate_proj"] == "other"
    assert gates["model.layers.0.mlp.gate_proj"] == "gate"


def test_every_group_of_heads_has_a_matrix_of_its_own(tmp_path: Path) -> None:
    held, contents = numbered("deepseek_v4", tmp_path)
    assert not contents.skips
    first = held["model.layers.1.self_attn.o_a_proj.weight"][0]
    groups = [p for n, p in contents.parameters.items() if n.startswith("model.layers.1.attn.wo_a")]
    read = [np.asarray(one.tensor.read()) / UNIT - first for one in groups if one.tensor]
    assert [matrix.shape for matrix in read] == [(8, 32), (8, 32)]
    assert np.array_equal(np.concatenate(read).ravel(), np.arange(16 * 32))
    maps = {p.module for p in contents.parameters.values()}
    assert {"model.layers.0.hc_attn_fn", "model.layers.0.hc_ffn_fn"} <= maps


def test_a_block_with_an_attention_and_several_mlps_is_one_layer(tmp_path: Path) -> None:
    contents = numbered("mobilebert", tmp_path)[1]
    for parameter in contents.parameters.values():
        if ".layer." in parameter.module:
            assert parameter.layer == int(parameter.module.split(".layer.")[1][0])


def test_kernels_of_single_channels_are_left_out_wherever_they_are(tmp_path: Path) -> None:
    held, contents = numbered("mobilenet_v1", tmp_path)
    kernels = {n for n, (_, m) in held.items() if isinstance(m, torch.nn.Conv2d) and m.groups > 1}
    assert len(kernels) == 13 and kernels <= {*contents.left_out}
