"""Families that a file's own names identify, with or without a config: roles, cuts and circuits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.components.circuits import Circuits
from rankscope.components.component import Moment
from rankscope.components.selection import AT_CHECKPOINTS

WIDTH, HEADS = 16, 4
MATRIX, MLP = (WIDTH, WIDTH), (24, WIDTH)
Arrays = dict[str, NDArray[Any]]


def saved(
    folder: Path, shapes: dict[str, tuple[int, ...]], config: dict[str, Any] | None = None
) -> tuple[Arrays, Contents]:
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return tensors, open_run(folder)[0].contents


def whisper() -> dict[str, tuple[int, ...]]:
    maps = {"query": MATRIX, "key": MATRIX, "value": MATRIX, "out": MATRIX}
    shapes = {"encoder.conv1.weight": (WIDTH, 8, 3), "decoder.token_embedding.weight": (40, WIDTH)}
    for block in ("encoder.blocks.0", "encoder.blocks.1", "decoder.blocks.0", "decoder.blocks.1"):
        shapes |= {f"{block}.attn.{name}.weight": shape for name, shape in maps.items()}
        shapes |= {f"{block}.mlp.0.weight": MLP, f"{block}.mlp.2.weight": MLP[::-1]}
        if block.startswith("decoder"):
            shapes |= {f"{block}.cross_attn.{name}.weight": shape for name, shape in maps.items()}
    return shapes


def test_whisper_of_openai_has_the_roles_of_its_own_names(tmp_path: Path) -> None:
    contents = saved(tmp_path, whisper())[1]
    assert contents.family == "whisper_openai" and not contents.skips
    roles = {one.module: (one.role, one.layer) for one in contents.parameters.values()}
    expected = {"attn.query": "q", "attn.key": "k", "attn.value": "v", "attn.out": "o",
                "mlp.0": "up", "mlp.2": "down"}  # fmt: skip
    for stack in ("encoder", "decoder"):
        for layer in (0, 1):
            found = {name: roles[f"{stack}.blocks.{layer}.{name}"] for name in expected}
            assert found == {name: (role, layer) for name, role in expected.items()}
    assert roles["decoder.blocks.1.cross_attn.query"] == ("other", 1)
    assert roles["decoder.token_embedding"] == ("embed", None)


PLAIN, ROTARY, VALUE, LATENT, QUERY = 8, 4, 10, 6, 12
SIZES = {"n_heads": HEADS, "kv_lora_rank": LATENT, "qk_nope_head_dim": PLAIN,
         "qk_rope_head_dim": ROTARY, "v_head_dim": VALUE}  # fmt: skip


def test_circuits_of_deepseek_under_its_own_names_are_the_products_by_definition(
    tmp_path: Path,
) -> None:
    own = {
        "wq_a": (QUERY, WIDTH), "q_norm": (QUERY,), "wq_b": (HEADS * (PLAIN + ROTARY), QUERY),
        "wkv_a": (LATENT + ROTARY, WIDTH), "kv_norm": (LATENT,),
        "wkv_b": (HEADS * (PLAIN + VALUE), LATENT), "wo": (WIDTH, HEADS * VALUE),
    }  # fmt: skip
    shapes = {f"layers.0.attn.{name}.weight": shape for name, shape in own.items()}
    shapes |= {f"layers.0.ffn.{name}.weight": MLP for name in ("w1", "w3")}
    shapes |= {"layers.0.ffn.w2.weight": MLP[::-1], "head.weight": (40, WIDTH)}
    tensors, contents = saved(tmp_path, shapes, SIZES)
    assert contents.family == "deepseek_inference" and not contents.skips
    held = {name: tensors[f"layers.0.attn.{name}.weight"].astype(float) for name in own}
    latent = held["kv_norm"][:, None] * held["wkv_a"][:LATENT]
    up = held["wkv_b"].reshape(HEADS, PLAIN + VALUE, LATENT)
    queries = (held["wq_b"] @ (held["q_norm"][:, None] * held["wq_a"])).reshape(HEADS, -1, WIDTH)
    out = held["wo"].reshape(WIDTH, HEADS, VALUE)
    expected = {
        "ov": np.einsum("ohv,hvl,li->hoi", out, up[:, PLAIN:], latent),
        "qk": np.einsum("hpi,hpl,lj->hij", queries[:, :PLAIN], up[:, :PLAIN], latent),
    }
    for kind, products in expected.items():
        (circuit,) = AT_CHECKPOINTS[kind](Moment(contents))
        assert isinstance(circuit.recipe, Circuits)
        assert circuit.recipe.factors().multiplied() == pytest.approx(products, abs=1e-4)


EQUAL = {f"encoder.layers.0.{name}.weight": shape for name, shape in {
    "attn.w_qkv": (48, WIDTH), "attn.out_proj": MATRIX, "ffn.net.0": MLP, "ffn.net.3": MLP[::-1],
}.items()}  # fmt: skip
INKLING = {f"model.llm.layers.0.{name}": shape for name, shape in {
    "attn.wq_du.weight": MATRIX, "attn.wk_dv.weight": (8, WIDTH), "attn.wv_dv.weight": (8, WIDTH),
    "attn.wo_ud.weight": MATRIX, "mlp.gate.weight": (3, WIDTH), "mlp.w13_dn.weight": (48, WIDTH),
    "mlp.experts.w13_weight": (3, 12, WIDTH), "mlp.experts.w2_weight": (3, WIDTH, 6),
    "mlp.shared_experts.shared_w13_weight": (2, 12, WIDTH),
}.items()}  # fmt: skip
SARVAM = {"model.layers.0.attention.query_key_value.weight": (32, WIDTH),
          "model.layers.0.attention.dense.weight": MATRIX}  # fmt: skip
GROUPED = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("shapes", "config", "name", "rows"),
    [
        (EQUAL, {}, "encoder.layers.0.attn.w_qkv.weight",
         {"q": slice(0, 16), "k": slice(16, 32), "v": slice(32, 48)}),
        (SARVAM, {"model_type": "sarvam_moe", **GROUPED}, next(iter(SARVAM)),
         {"q": slice(0, 16), "k": slice(16, 24), "v": slice(24, 32)}),
        (INKLING, {}, "model.llm.layers.0.mlp.w13_dn.weight",
         {"gate": slice(0, None, 2), "up": slice(1, None, 2)}),
        (INKLING, {}, "model.llm.layers.0.mlp.experts.w13_weight[2]",
         {"gate": slice(0, None, 2), "up": slice(1, None, 2)}),
        (INKLING, {}, "model.llm.layers.0.mlp.shared_experts.shared_w13_weight[1]",
         {"gate": slice(0, None, 2), "up": slice(1, None, 2)}),
    ],
    ids=["NeMo", "Sarvam", "Inkling", "experts of Inkling", "shared experts of Inkling"],
)  # fmt: skip
def test_a_fused_tensor_is_cut_into_the_rows_of_its_parts(
    shapes: dict[str, tuple[int, ...]],
    config: dict[str, Any],
    name: str,
    rows: dict[str, slice],
    tmp_path: Path,
) -> None:
    tensors, contents = saved(tmp_path, shapes, config)
    assert not contents.skips
    stored, _, index = name.partition("[")
    whole = tensors[stored][int(index[:-1])] if index else tensors[stored]
    for role, which in rows.items():
        part = contents.parameters[f"{name}[{role}]"]
        assert part.role == role and part.tensor is not None
        assert np.array_equal(part.tensor.read(), whole[which])


def test_exaone_has_its_gate_before_its_up(tmp_path: Path) -> None:
    maps = {f"attn.attention.{one}_proj": MATRIX for one in ("q", "k", "v", "out")}
    maps |= {"mlp.c_fc_0": MLP, "mlp.c_fc_1": MLP, "mlp.c_proj": MLP[::-1]}
    contents = saved(tmp_path, {f"transformer.h.0.{m}.weight": s for m, s in maps.items()})[1]
    assert contents.family == "exaone"
    roles = [one.role for one in sorted(contents.parameters.values(), key=lambda one: one.name)]
    assert roles == ["k", "o", "q", "v", "gate", "up", "down"]


def test_two_maps_in_a_sequence_are_one_matrix(tmp_path: Path) -> None:
    """The gates of Flash Linear Attention; a gate of one map is a matrix as well."""
    attention = "model.layers.0.attn"
    own = {"gk_proj.0.weight": (4, 32), "gk_proj.1.weight": (20, 4), "gk_proj.1.bias": (20,)}
    own |= {f"{name}_proj.weight": MATRIX for name in "qog"}
    shapes = {f"{attention}.{name}": shape for name, shape in own.items()}
    tensors, contents = saved(tmp_path, shapes)
    assert not contents.skips
    names = {f"{attention}.{name}_proj.weight" for name in ("gk", *"qog")}
    assert contents.parameters.keys() == names
    made = contents.parameters[f"{attention}.gk_proj.weight"]
    product = tensors[f"{attention}.gk_proj.1.weight"] @ tensors[f"{attention}.gk_proj.0.weight"]
    assert made.tensor is not None and made.tensor.read() == pytest.approx(product, abs=1e-5)


@pytest.mark.parametrize(
    "maps",
    [
        {"g_proj.0": (8, 8), "g_proj.1": (8, 8)},
        {"g_proj.0": (4, 16), "g_proj.1": (16, 8)},
        {"g_proj.0": (4, 16), "g_proj.1": (16, 4), "g_proj.2": (4, 16)},
        {"f_proj.0": (4, 16), "f_proj.1": (16, 4)},
    ],
    ids=["square", "no common side", "three", "no attention"],
)
def test_members_of_a_list_are_matrices_of_their_own(
    maps: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    attention = {} if "f_proj.0" in maps else {"q_proj": MATRIX, "o_proj": MATRIX}
    shapes = attention | maps
    named = {f"layers.0.attn.{name}.weight": shape for name, shape in shapes.items()}
    contents = saved(tmp_path, named)[1]
    assert not contents.skips and contents.parameters.keys() == named.keys()


@pytest.mark.parametrize(
    ("name", "rows", "role"),
    [
        ("backbone.embeddings", 40, "embed"),
        ("codec_embedding.3", 40, "embed"),
        ("input_embeds_layer", 40, "embed"),
        ("embeddings", 39, "other"),
        ("value_embeddings", 40, "other"),
        ("classifier", 40, "other"),
    ],
)
def test_a_table_of_all_tokens_is_an_embedding(
    name: str, rows: int, role: str, tmp_path: Path
) -> None:
    config = {"model_type": "unheard-of", "vocab_size": 40}
    contents = saved(tmp_path, {f"{name}.weight": (rows, WIDTH)}, config)[1]
    assert [one.role for one in contents.parameters.values()] == [role]
