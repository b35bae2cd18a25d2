"""Towers, and adapters without their model: the heads and roles of each."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Adapter, Contents, Heads
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.recognition import adapted_family
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.circuits import Circuits
from rankscope.components.component import Moment
from rankscope.components.selection import AT_CHECKPOINTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
        "intermediate_size": 40}  # fmt: skip
SIGHT = TEXT | {"hidden_size": 48, "num_attention_heads": 6, "image_size": 16, "patch_size": 8}
WORDS = {"vocab_size": 30}
GENERIC = read_family("generic")


def saved(model: Any, folder: Path) -> Contents:
    model.save_pretrained(folder)
    return open_run(folder)[0].contents


def heads_at(contents: Contents) -> dict[str, set[Heads | None]]:
    """Heads of the output projections, by the first part of their path, which names the tower."""
    found: dict[str, set[Heads | None]] = {}
    for one in contents.parameters.values():
        if one.role == "o":
            part = next((p for p in one.module.split(".") if p != "model"), "")
            found.setdefault(part, set()).add(one.heads)
    return found


def clip() -> Any:
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT | WORDS, vision_config=SIGHT)
    )


def whisper() -> Any:
    return transformers.WhisperModel(
        transformers.WhisperConfig(
            d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=2, encoder_ffn_dim=40, decoder_ffn_dim=40, num_mel_bins=8,
            max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=1, **WORDS,
        )
    )  # fmt: skip


def llava() -> Any:
    text = transformers.LlamaConfig(**TEXT, **WORDS, num_key_value_heads=2)
    sight = transformers.CLIPVisionConfig(**SIGHT)
    return transformers.LlavaModel(transformers.LlavaConfig(text_config=text, vision_config=sight))


def qwen() -> Any:
    sight = {"depth": 2, "embed_dim": 48, "num_heads": 6, "hidden_size": 32, "patch_size": 4}
    text = TEXT | WORDS | {"num_key_value_heads": 2}
    return transformers.Qwen2VLModel(
        transformers.Qwen2VLConfig(text_config=text, vision_config=sight)
    )


EIGHT = Heads(4, 4, 8)
MODELS: dict[str, tuple[Callable[[], Any], dict[str, Heads | None]]] = {
    "CLIP": (clip, {"text_model": EIGHT, "vision_model": Heads(6, 6, 8)}),
    "Whisper": (whisper, {"encoder": EIGHT, "decoder": Heads(2, 2, 16)}),
    "LLaVA": (llava, {"language_model": Heads(4, 2, 8), "vision_tower": Heads(6, 6, 8)}),
    # The width in its config's table of the vision tower is that of the language model.
    "Qwen 2 VL": (qwen, {"language_model": Heads(4, 2, 8), "visual": None}),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_tower_has_the_heads_of_its_own_config(name: str, tmp_path: Path) -> None:
    build, expected = MODELS[name]
    found = heads_at(saved(build(), tmp_path))
    for tower, heads in expected.items():
        assert [h for part, h in found.items() if part == tower] in ([{heads}], [])
    assert {h for heads in found.values() for h in heads} == set(expected.values())


@pytest.mark.parametrize("name", MODELS)
def test_every_tower_has_the_roles_of_its_blocks(name: str, tmp_path: Path) -> None:
    contents = saved(MODELS[name][0](), tmp_path)
    assert not contents.skips
    own: dict[str, list[str]] = {}
    for one in contents.parameters.values():
        if one.layer is not None and "encoder_attn" not in one.module:
            own.setdefault(one.block, []).append(one.role)
    assert len(own) == 4
    for roles in own.values():
        assert sorted(r for r in roles if r != "gate") == ["down", "k", "o", "q", "up", "v"]


def test_circuits_of_both_towers_are_what_their_heads_write(tmp_path: Path) -> None:
    model = clip()
    contents = saved(model, tmp_path)
    circuits = list(AT_CHECKPOINTS["ov"](Moment(contents)))
    assert sorted(c.heads for c in circuits) == [4, 4, 6, 6]
    for circuit in circuits:
        assert isinstance(circuit.recipe, Circuits)
        attention = model.get_submodule(circuit.name.removesuffix(".ov"))
        out, value = (m.weight.detach().numpy() for m in (attention.out_proj, attention.v_proj))
        products = circuit.recipe.factors()
        for head in range(circuit.heads):
            rows = slice(head * 8, head * 8 + 8)
            expected = out[:, rows] @ value[rows]
            assert products.left[head] @ products.right[head] == pytest.approx(expected, abs=1e-5)


SHARED = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
GLOBAL = {**SHARED, **KINDS, "global_head_dim": 16, "num_global_key_value_heads": 1}


@pytest.mark.parametrize(
    ("own", "layers"),
    [
        ({"per_layer_config": {"01": {"head_dim": 16, "num_key_value_heads": 1}}},
         [Heads(4, 2, 8), Heads(4, 1, 16), Heads(4, 2, 8)]),
        (GLOBAL | {"attention_k_eq_v": True}, [Heads(4, 2, 8), Heads(4, 1, 16), Heads(4, 2, 8)]),
        (GLOBAL | {"attention_k_eq_v": False}, [Heads(4, 2, 8), Heads(4, 2, 16), Heads(4, 2, 8)]),
        ({"num_attention_heads_per_layer": [4, 6]},
         [Heads(4, 2, 8), Heads(6, 2, 8), Heads(4, 2, 8)]),
        (KINDS | {"swa_num_attention_heads": 8, "swa_head_dim": 4},
         [Heads(8, 2, 4), Heads(4, 2, 8), Heads(4, 2, 8)]),
        ({"per_layer_config": None, "layer_types": "full", "global_head_dim": 16},
         [Heads(4, 2, 8)] * 3),
    ],
    ids=["transformers", "Gemma 4", "Gemma 4 E4B", "Laguna", "Inkling", "nonsense"],
)  # fmt: skip
def test_a_layer_has_the_heads_that_its_config_states_for_it(
    own: dict[str, Any], layers: list[Heads]
) -> None:
    for config in (SHARED | own, {"text_config": SHARED | own, "hidden_size": 7}):
        towers = Towers(config, GENERIC)
        assert [towers.of(f"model.layers.{i}.x", f"model.layers.{i}") for i in range(3)] == layers
    assert towers.of("model.layers.x") == Heads(4, 2, 8)


@pytest.mark.parametrize(
    ("config", "module", "shapes", "heads"),
    [
        ({"encoder": TEXT, "decoder": SIGHT}, "encoder.encoder.layer.0.x", [], EIGHT),
        ({"encoder": TEXT, "decoder": SIGHT}, "decoder.bert.encoder.layer.0.x", [],
         Heads(6, 6, 8)),
        ({"text_config": TEXT, "vision_config": SIGHT}, "model.layers.0.x", [(32, 32)], EIGHT),
        ({"text_config": TEXT, "vision_config": SIGHT}, "visual.blocks.0.x", [], Heads(6, 6, 8)),
        ({"text_config": TEXT, "vision_config": SIGHT}, "tower.0.x", [(48, 48)], Heads(6, 6, 8)),
        ({"text_config": TEXT, "audio_config": SIGHT, "vision_config": TEXT},
         "speech_tower.layers.0.x", [], Heads(6, 6, 8)),
        ({"text_config": TEXT, "qformer_config": SIGHT}, "qformer.layer.0.x", [],
         Heads(6, 6, 8)),
        ({"text_config": TEXT, "vision_config": {"num_heads": 5, "hidden_size": 32}},
         "visual.blocks.0.x", [(32, 32)], None),
        ({**TEXT, "decoder_hidden_size": 24, "decoder_num_attention_heads": 3},
         "decoder.layers.0.x", [], Heads(3, 3, 8)),
        ({**TEXT, "decoder_hidden_size": 24, "decoder_num_attention_heads": 3},
         "vit.encoder.layer.0.x", [], EIGHT),
        ({"num_attention_heads": 4, "hidden_size": 32, "num_query_groups": 1}, "layers.0.x", [],
         EIGHT),
        ({"num_attention_heads": 4, "hidden_size": 32, "num_query_groups": 2,
          "group_query_attention": True}, "layers.0.x", [], Heads(4, 2, 8)),
        ({}, "visual.blocks.0.x", [], None),
    ],
)  # fmt: skip
def test_the_name_of_a_tower_chooses_its_table_before_shapes(
    config: dict[str, Any], module: str, shapes: list[tuple[int, ...]], heads: Heads | None
) -> None:
    assert Towers(config, GENERIC).of(module, shapes=shapes) == heads


# Adapters without the model that they were put on.

PREFIX = "base_model.model."


def adapter_folder(
    folder: Path, modules: dict[str, tuple[int, int]], rng: np.random.Generator
) -> Contents:
    """Read an adapter of PEFT, rank 4, scale 2, without its base."""
    tensors = {}
    for module, (rows, columns) in modules.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = rng.normal(size=(4, columns))
        tensors[f"{PREFIX}{module}.lora_B.weight"] = rng.normal(size=(rows, 4))
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "nowhere"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_run(folder)[0].contents


SQUARE = (16, 16)
ALONE: dict[str, tuple[dict[str, tuple[int, int]], list[str]]] = {
    "GPT-2": ({"transformer.h.{}.attn.c_attn": (48, 16)}, ["q", "k", "v"]),
    "GPT-2, all": ({"transformer.h.{}.attn.c_attn": (48, 16),
                    "transformer.h.{}.attn.c_proj": SQUARE,
                    "transformer.h.{}.mlp.c_fc": (64, 16),
                    "transformer.h.{}.mlp.c_proj": (16, 64)},
                   ["q", "k", "v", "o", "up", "down"]),
    "RoBERTa": ({"roberta.encoder.layer.{}.attention.self.query": SQUARE,
                 "roberta.encoder.layer.{}.attention.self.value": SQUARE}, ["q", "v"]),
    "any BERT": ({"my.own.encoder.layer.{}.attention.self.key": SQUARE,
                  "my.own.encoder.layer.{}.attention.output.dense": SQUARE,
                  "my.own.encoder.layer.{}.output.dense": (16, 40)}, ["k", "o", "down"]),
    "T5": ({"encoder.block.{}.layer.0.SelfAttention.q": SQUARE,
            "encoder.block.{}.layer.0.SelfAttention.v": SQUARE}, ["q", "v"]),
    "DistilBERT": ({"distilbert.transformer.layer.{}.attention.q_lin": SQUARE,
                    "distilbert.transformer.layer.{}.attention.out_lin": SQUARE}, ["q", "o"]),
    "Llama": ({"model.layers.{}.self_attn.q_proj": SQUARE,
               "model.layers.{}.mlp.gate_proj": (40, 16)}, ["q", "gate"]),
    "ModernBERT": ({"layers.{}.attn.Wqkv": (48, 16)}, ["q", "k", "v"]),
    "timm's ViT": ({"blocks.{}.attn.qkv": (48, 16)}, ["q", "k", "v"]),
    "diffusers": ({"transformer_blocks.{}.attn1.to_q": SQUARE,
                   "transformer_blocks.{}.attn1.to_out.0": SQUARE}, ["q", "o"]),
    # Families do not agree on these, so nothing is cut.
    "heads not known": ({"gpt_neox.layers.{}.attention.query_key_value": (48, 16)}, ["other"]),
    "fewer keys": ({"blocks.{}.attn.qkv": (24, 16)}, ["other"]),
    "Phi or CodeGen": ({"model.layers.{}.qkv_proj": (48, 16)}, ["other"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("wrapped", ["", "wrapper."])
def test_an_adapter_alone_has_the_roles_of_its_model(
    name: str, wrapped: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    modules, roles = ALONE[name]
    every = {f"{wrapped}{m.format(i)}": shape for m, shape in modules.items() for i in range(2)}
    contents = adapter_folder(tmp_path / "adapter", every, rng)
    assert not contents.skips
    for layer in range(2):
        found = [p for p in contents.parameters.values() if p.layer == layer]
        assert sorted(p.role for p in found) == sorted(roles)
        assert all(p.adapter is not None and p.adapter.scale == 2 for p in found)


def test_the_parts_of_a_fused_delta_are_its_rows(tmp_path: Path, rng: np.random.Generator) -> None:
    name = "transformer.h.0.attn.c_attn"
    contents = adapter_folder(tmp_path / "adapter", {name: (48, 16)}, rng)
    stored = open_tensors(tmp_path / "adapter" / "adapter_model.safetensors")
    left, right = (np.asarray(stored[f"{PREFIX}{name}.lora_{x}.weight"].read()) for x in "BA")
    for role, rows in zip("qkv", np.split(2 * left @ right, 3), strict=True):
        adapter = contents.parameters[f"{name}.weight[{role}]"].adapter
        assert isinstance(adapter, Adapter) and adapter.scale is not None
        product = np.asarray(adapter.lora_B.read()) @ np.asarray(adapter.lora_A.read())
        assert adapter.scale * product == pytest.approx(rows)


def test_a_family_that_needs_a_config_is_not_guessed() -> None:
    shapes = {f"h.{i}.self_attention.query_key_value": (48, 16) for i in range(2)}
    assert not adapted_family(shapes).when


# Models most of which have no role.


def test_a_model_of_mostly_unknown_roles_is_noted(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors = {f"cells.{i}.{n}.weight": rng.normal(size=(8, 8)) for i in range(2) for n in "ab"}
    save_file(tensors, tmp_path / "weights.safetensors")
    contents = contents_of("any", open_tensors(tmp_path / "weights.safetensors"), {}, DEFAULT)
    (note,) = contents.notes
    assert note.reason == "roles-unknown" and "4 of 4 modules" in note.message
    assert not contents.skips


@pytest.mark.parametrize("name", ["CLIP", "LLaVA"])
def test_a_model_of_known_roles_is_not(name: str, tmp_path: Path) -> None:
    assert not saved(MODELS[name][0](), tmp_path).notes


def roles(modules: dict[str, tuple[int, int]], family: str) -> dict[str, str]:
    """Roles of modules by their shapes, in one block of a family."""
    names = {f"layers.0.{module}.weight": shape for module, shape in modules.items()}
    stored: dict[str, Any] = {
        name: StoredTensor("/nowhere", name, "float32", shape, 2000 * place)
        for place, (name, shape) in enumerate(names.items())
    }
    found = contents_of("any", stored, {}, replace(DEFAULT, family=read_family(family)))
    return {p.module.removeprefix("layers.0."): p.role for p in found.parameters.values()}


@pytest.mark.parametrize("attention", ["cross_attn", "cross_attention.attention", "encoder_attn",
                                       "EncDecAttention", "crossattention"])  # fmt: skip
@pytest.mark.parametrize("family", ["llama-like", "opt", "generic", "experts"])
def test_attention_to_another_input_has_no_role_in_any_family(family: str, attention: str) -> None:
    own = {f"self_attn.{x}_proj": (8, 8) for x in "qkv"}
    other = {f"{attention}.{x}_proj": (8, 8) for x in "qkv"}
    found = roles({**own, **other, f"{attention}.mlp.down_proj": (8, 24)}, family)
    assert {found[name] for name in own} == {"q", "k", "v"}
    assert {found[name] for name in other} == {"other"}


def test_a_table_that_names_such_an_attention_has_its_word(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('name = "own"\n[roles]\n"cross_attn.q_proj" = "q"\n')
    assert roles({"cross_attn.q_proj": (8, 8)}, str(tmp_path / "own.toml")) == {
        "cross_attn.q_proj": "q"
    }


def test_what_holds_gate_and_up_is_not_the_up() -> None:
    assert roles({"mlp.fc1": (32, 8), "mlp.fc2": (8, 16)}, "generic")["mlp.fc1"] == "other"
    assert roles({"mlp.fc1": (16, 8), "mlp.fc2": (8, 16)}, "generic")["mlp.fc1"] == "up"
