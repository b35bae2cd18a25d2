"""Families that names alone identify, and what their configs add."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.options import DEFAULT

WIDTH, HIDDEN, VOCABULARY, HEADS, KV_HEADS, SIZE = 16, 40, 24, 4, 2, 4
Q, KV = HEADS * SIZE, KV_HEADS * SIZE
OUTPUTS = {  # rows of each role; the columns follow
    "q": (Q, WIDTH), "k": (KV, WIDTH), "v": (KV, WIDTH), "o": (WIDTH, Q),
    "gate": (HIDDEN, WIDTH), "up": (HIDDEN, WIDTH), "down": (WIDTH, HIDDEN),
    "embed": (VOCABULARY, WIDTH), "unembed": (VOCABULARY, WIDTH),
}  # fmt: skip
EMBEDS = ("embed", "unembed")

# The names of each family's roles; those in a fused tensor joined by +, in the order of rows.
NAMES: dict[str, dict[str, str]] = {
    "olmo_v1": {
        "transformer.blocks.0.att_proj": "q+k+v",
        "transformer.blocks.0.attn_out": "o",
        "transformer.blocks.0.ff_proj": "up+gate",
        "transformer.blocks.0.ff_out": "down",
        "transformer.wte": "embed",
        "transformer.ff_out": "unembed",
    },
    "olmo_core": {
        "blocks.0.attention.w_q": "q",
        "blocks.0.attention.w_k": "k",
        "blocks.0.attention.w_v": "v",
        "blocks.0.attention.w_out": "o",
        "blocks.0.feed_forward.w1": "gate",
        "blocks.0.feed_forward.w2": "down",
        "blocks.0.feed_forward.w3": "up",
        "embeddings": "embed",
        "lm_head.w_out": "unembed",
    },
    "meta_llama": {
        "layers.0.attention.wq": "q",
        "layers.0.attention.wk": "k",
        "layers.0.attention.wv": "v",
        "layers.0.attention.wo": "o",
        "layers.0.feed_forward.w1": "gate",
        "layers.0.feed_forward.w2": "down",
        "layers.0.feed_forward.w3": "up",
        "tok_embeddings": "embed",
        "output": "unembed",
    },
    "litgpt": {
        "transformer.h.0.attn.qkv": "q+k+v",
        "transformer.h.0.attn.proj": "o",
        "transformer.h.0.mlp.fc_1": "gate",
        "transformer.h.0.mlp.fc_2": "up",
        "transformer.h.0.mlp.proj": "down",
        "transformer.wte": "embed",
        "lm_head": "unembed",
    },
    "pico": {
        "pico_decoder.layers.0.attention.q_proj": "q",
        "pico_decoder.layers.0.attention.k_proj": "k",
        "pico_decoder.layers.0.attention.v_proj": "v",
        "pico_decoder.layers.0.attention.o_proj": "o",
        "pico_decoder.layers.0.swiglu.w_0": "gate",
        "pico_decoder.layers.0.swiglu.w_1": "up",
        "pico_decoder.layers.0.swiglu.w_2": "down",
        "pico_decoder.embedding_proj": "embed",
        "pico_decoder.de_embedding_proj": "unembed",
    },
}
NORMS = {
    "olmo_v1": "transformer.blocks.0.attn_norm.weight",
    "olmo_core": "blocks.0.attention_norm.weight",
    "meta_llama": "layers.0.attention_norm.weight",
    "litgpt": "transformer.h.0.norm_1.weight",
    "pico": "pico_decoder.layers.0.attention_norm.weight",
}
CONFIGS: dict[str, dict[str, object]] = {
    "olmo_v1": {"d_model": WIDTH, "n_heads": HEADS, "n_kv_heads": KV_HEADS, "n_layers": 1},
    "olmo_core": {
        "model": {
            "d_model": WIDTH,
            "block": {"attention": {"n_heads": HEADS, "n_kv_heads": KV_HEADS}},
        }
    },
    "meta_llama": {"dim": WIDTH, "n_layers": 1, "n_heads": HEADS, "n_kv_heads": KV_HEADS},
    "litgpt": {
        "n_embd": WIDTH, "n_head": HEADS, "n_query_groups": KV_HEADS, "head_size": SIZE,
        "n_layer": 1,
    },
    "pico": {
        "model_type": "pico_decoder", "d_model": WIDTH, "attention_n_heads": HEADS,
        "attention_n_kv_heads": KV_HEADS, "activation_hidden_dim": HIDDEN, "n_layers": 1,
    },
}  # fmt: skip


def read(
    folder: Path, tensors: Mapping[str, np.ndarray], config: dict[str, object] | None = None
) -> Contents:
    save_file(dict(tensors), folder / "weights.safetensors")
    return contents_of("any", open_tensors(folder / "weights.safetensors"), config or {}, DEFAULT)


def written(family: str, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of a one-layer model with fewer key than query heads, and the roles in each."""
    tensors = {NORMS[family]: np.ones(WIDTH, np.float32)}
    for module, roles in NAMES[family].items():
        parts = [rng.normal(size=OUTPUTS[role]).astype(np.float32) for role in roles.split("+")]
        tensors[f"{module}.weight"] = np.concatenate(parts)
    return tensors, {f"{module}.weight": roles for module, roles in NAMES[family].items()}


@pytest.mark.parametrize("family", NAMES)
def test_every_part_is_found_in_its_rows(
    family: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors, names = written(family, rng)
    contents = read(tmp_path, tensors, CONFIGS[family])
    assert contents.family == family and not contents.skips
    assert contents.left_out == (NORMS[family],)
    assert contents.heads is not None
    assert (contents.heads.count, contents.heads.kv_count, contents.heads.size) == (4, 2, 4)
    for name, roles in names.items():
        start = 0
        for role in roles.split("+"):
            part = contents.parameters[name if "+" not in roles else f"{name}[{role}]"]
            assert (part.role, part.layer) == (role, None if role in EMBEDS else 0)
            rows = OUTPUTS[role][0]
            assert part.tensor is not None
            assert (part.tensor.read() == tensors[name][start : start + rows]).all()
            start += rows
    assert len(contents.parameters) == len(OUTPUTS)


@pytest.mark.parametrize("family", NAMES)
def test_names_alone_tell_the_family(family: str, tmp_path: Path, rng: np.random.Generator) -> None:
    tensors, _ = written(family, rng)
    contents = read(tmp_path, tensors)
    assert contents.family == family and contents.heads is None
    # Without heads nobody knows how many rows of a fused tensor are keys.
    unsplit = {n: p.shape[0] for n, p in contents.parameters.items() if p.role == "other"}
    assert unsplit == {
        n: Q + 2 * KV for n in tensors if n.endswith(("att_proj.weight", "attn.qkv.weight"))
    }


def test_litgpt_of_old_has_the_heads_of_each_group_together(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    groups = [
        [rng.normal(size=(rows, WIDTH)).astype(np.float32) for rows in (2 * SIZE, SIZE, SIZE)]
        for _ in range(KV_HEADS)
    ]
    layer = "transformer.h.0"
    tensors = {
        f"{layer}.attn.attn.weight": np.concatenate([part for group in groups for part in group]),
        f"{layer}.attn.proj.weight": rng.normal(size=(WIDTH, Q)).astype(np.float32),
        f"{layer}.mlp.fc.weight": rng.normal(size=(HIDDEN, WIDTH)).astype(np.float32),
        f"{layer}.mlp.proj.weight": rng.normal(size=(WIDTH, HIDDEN)).astype(np.float32),
        "transformer.wte.weight": rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
    }
    contents = read(tmp_path, tensors, CONFIGS["litgpt"])
    assert contents.family == "litgpt_grouped"
    for i, role in enumerate("qkv"):
        found = contents.parameters[f"{layer}.attn.attn.weight[{role}]"].tensor
        assert found is not None
        assert (found.read() == np.concatenate([group[i] for group in groups])).all()
    roles = {name: p.role for name, p in contents.parameters.items()}
    assert roles[f"{layer}.mlp.fc.weight"] == "up"
    assert roles[f"{layer}.mlp.proj.weight"] == "down"


@pytest.mark.parametrize("model_type", ["hf_olmo", "olmo"])
def test_olmo_in_a_hugging_face_folder_keeps_its_own_names(
    model_type: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors, _ = written("olmo_v1", rng)
    inner = {f"model.{name}": tensor for name, tensor in tensors.items()}
    contents = read(tmp_path, inner, CONFIGS["olmo_v1"] | {"model_type": model_type})
    gate = contents.parameters["model.transformer.blocks.0.ff_proj.weight[gate]"]
    assert contents.family == "olmo_v1" and gate.tensor is not None
    assert (gate.tensor.read() == tensors["transformer.blocks.0.ff_proj.weight"][HIDDEN:]).all()


def test_olmo_without_a_gate_has_only_an_up(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors, _ = written("olmo_v1", rng)
    config = CONFIGS["olmo_v1"] | {"activation_type": "gelu"}
    out = "transformer.blocks.0.ff_out.weight"  # has as many inputs as the other has outputs then
    contents = read(tmp_path, tensors | {out: np.tile(tensors[out], 2)}, config)
    assert contents.parameters["transformer.blocks.0.ff_proj.weight"].role == "up"


def test_mistral_has_metas_names_for_its_experts(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors, _ = written("meta_llama", rng)
    layer = "layers.0.feed_forward"
    for name, shape in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
        del tensors[f"{layer}.{name}.weight"]
        for i in range(2):
            tensors[f"{layer}.experts.{i}.{name}.weight"] = rng.normal(size=OUTPUTS[shape])
    tensors[f"{layer}.gate.weight"] = rng.normal(size=(2, WIDTH))
    contents = read(tmp_path, tensors, CONFIGS["meta_llama"])
    assert contents.family == "meta_llama"
    assert contents.parameters[f"{layer}.gate.weight"].role == "router"
    down = contents.parameters[f"{layer}.experts.1.w2.weight"]
    assert (down.role, down.expert, down.shape) == ("down", 1, OUTPUTS["down"])


def test_the_same_letter_means_another_role_in_another_family(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for family, module, role in (
        ("pico", "pico_decoder.layers.0.swiglu.w_1.weight", "up"),
        ("meta_llama", "layers.0.feed_forward.w1.weight", "gate"),
    ):
        folder = tmp_path / family
        folder.mkdir()
        assert read(folder, written(family, rng)[0]).parameters[module].role == role


def test_the_experts_of_litgpt_have_roles(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors, _ = written("litgpt", rng)
    mlp = "transformer.h.0.mlp"
    names = {"fc_1": "gate", "fc_2": "up", "proj": "down"}
    experts = {
        f"{mlp}.experts.{i}.{name}.weight": tensors[f"{mlp}.{name}.weight"] + i
        for name in names
        for i in range(3)
    }
    dense = {name: one for name, one in tensors.items() if not name.startswith(mlp)}
    router = {f"{mlp}.gate.weight": np.ones((3, WIDTH), np.float32)}
    contents = read(tmp_path, {**dense, **experts, **router}, CONFIGS["litgpt"])
    found = {(one.role, one.expert) for one in contents.parameters.values()}
    assert found == {
        *((role, None) for role in ("q", "k", "v", "o", "router", *EMBEDS)),
        *((role, i) for role in names.values() for i in range(3)),
    }
