"""Checkpoints that transformers and peft write are read as those libraries read them."""

from pathlib import Path

import numpy as np
import pytest

from rankscope.checkpoints.discovery import open_run
from rankscope.components.recipes import Weight

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of one library at the other


@pytest.fixture
def model() -> "transformers.LlamaForCausalLM":
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_matrices_of_a_saved_model_are_those_in_memory(
    dtype: str, shard: str, model: "transformers.LlamaForCausalLM", tmp_path: Path
) -> None:
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path / "step_7", max_shard_size=shard)
    shards = len(list((tmp_path / "step_7").glob("*.safetensors")))
    assert (shards > 1) == (shard == "20KB")
    parameters = open_run(tmp_path)[7].contents.parameters
    held = {name: p for name, p in model.state_dict().items() if p.ndim == 2}
    assert set(parameters) == set(held)
    for name, parameter in parameters.items():
        assert parameter.tensor is not None and parameter.dtype == dtype
        assert (parameter.tensor.read() == held[name].float().numpy()).all()


@pytest.mark.parametrize("use_rslora", [False, True])
def test_an_adapter_on_its_base_is_what_peft_merges(
    use_rslora: bool, model: "transformers.LlamaForCausalLM", tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, use_rslora=use_rslora, init_lora_weights=False,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"v_proj": 2}, alpha_pattern={"down_proj": 3},
    )  # fmt: skip
    adapted = peft.get_peft_model(
        transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base"), config
    )
    adapted.save_pretrained(tmp_path / "run" / "checkpoint-3")
    merged = adapted.merge_and_unload().state_dict()
    parameters = open_run(tmp_path / "run")[3].contents.parameters
    assert sum(p.adapter is not None for p in parameters.values()) == 6
    for name, parameter in parameters.items():
        assert parameter.tensor is not None
        found = np.asarray(Weight(parameter.tensor, parameter.adapter).read().values)
        assert found == pytest.approx(merged[name].double().numpy(), abs=1e-6)


@pytest.mark.parametrize("shard", ["10GB", "20KB"])
def test_a_variant_is_read_under_its_name(
    shard: str, model: "transformers.LlamaForCausalLM", tmp_path: Path
) -> None:
    model.half().save_pretrained(tmp_path / "step_7", max_shard_size=shard, variant="fp16")
    assert not (tmp_path / "step_7" / "model.safetensors").exists()
    parameters = open_run(tmp_path)[7].contents.parameters
    for name, parameter in parameters.items():
        assert parameter.tensor is not None and parameter.dtype == "float16"
        assert (parameter.tensor.read() == model.state_dict()[name].numpy()).all()


def test_a_model_saved_with_its_adapters_is_axolotls_base(
    model: "transformers.LlamaForCausalLM", tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    folder = tmp_path / "checkpoint-3"
    adapted.save_pretrained(folder)
    adapted.base_model.model.save_pretrained(folder / "relora")
    merged = adapted.merge_and_unload().state_dict()
    parameters = open_run(tmp_path)[3].contents.parameters
    assert set(parameters) == {name for name, p in merged.items() if p.ndim == 2}
    for name, parameter in parameters.items():
        assert parameter.tensor is not None
        found = np.asarray(Weight(parameter.tensor, parameter.adapter).read().values)
        assert found == pytest.approx(merged[name].double().numpy(), abs=1e-6)


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "linear_1"], ["lm_head"]])
def test_an_adapter_of_a_model_of_text_and_images_finds_its_weights(
    targets: list[str], tmp_path: Path
) -> None:
    """The two parts of the model have another prefix in memory than in files."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": 50, **sizes},
        vision_config={
            "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **sizes
        },
    )  # fmt: skip
    model = transformers.LlavaForConditionalGeneration(config)
    model.save_pretrained(tmp_path / "base")
    lora = peft.LoraConfig(r=4, init_lora_weights=False, target_modules=targets)
    adapted = peft.get_peft_model(model, lora)
    adapted.save_pretrained(tmp_path / "run" / "checkpoint-3", save_embedding_layers=False)
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    run = open_run(tmp_path / "run", base=tmp_path / "base")
    merged = open_run(tmp_path / "merged").checkpoints[0].contents.parameters
    contents = run[3].contents
    assert not contents.skips and not contents.notes
    assert any(one.adapter is not None for one in contents.parameters.values())
    for name, one in contents.parameters.items():
        after = merged[name].tensor
        assert one.tensor is not None and after is not None
        found = np.asarray(Weight(one.tensor, one.adapter).read().values)
        assert found == pytest.approx(after.read(), abs=1e-5)


def test_an_adapter_of_a_vision_model_finds_its_weights(tmp_path: Path) -> None:
    """transformers 5 calls the modules of a ViT otherwise in memory than in files."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=16, patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config).save_pretrained(tmp_path / "base")
    base = transformers.ViTModel.from_pretrained(tmp_path / "base")
    linear = {n.rpartition(".")[2] for n, m in base.named_modules() if type(m).__name__ == "Linear"}
    lora = peft.LoraConfig(r=4, init_lora_weights=False, target_modules=sorted(linear - {"dense"}))
    adapted = peft.get_peft_model(base, lora)
    adapted.save_pretrained(tmp_path / "run" / "checkpoint-3")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    contents = open_run(tmp_path / "run")[3].contents
    merged = open_run(tmp_path / "merged").checkpoints[0].contents.parameters
    assert not contents.skips
    assert sum(p.adapter is not None for p in contents.parameters.values()) == 12
    for name, parameter in contents.parameters.items():
        whole = merged[name].tensor
        assert parameter.tensor is not None and whole is not None
        found = np.asarray(Weight(parameter.tensor, parameter.adapter).read().values)
        assert found == pytest.approx(whole.read().astype(float), abs=1e-6)


ROLES_OF = {
    "XLNetLMHeadModel": {*"qkvo", "up", "down", "embed", "other"},  # other: of relative positions
    "FunnelForMaskedLM": {*"qkvo", "up", "down", "embed", "other"},
    "RecurrentGemmaForCausalLM": {*"qkvo", "gate", "up", "down", "embed", "other"},
}
CONFIGS = {
    "XLNetLMHeadModel": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
    "FunnelForMaskedLM": {
        **{"block_sizes": [1, 1], "num_decoder_layers": 1, "d_model": 32},
        **{"n_head": 4, "d_head": 8, "d_inner": 64},
    },
    "RecurrentGemmaForCausalLM": {
        **{"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 96, "lru_width": 32},
        **{"num_attention_heads": 4, "attention_window_size": 16},
    },
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_families_with_parameters_of_three_axes_are_read_whole(kind: str, tmp_path: Path) -> None:
    made = getattr(transformers, kind)
    made(made.config_class(vocab_size=64, **CONFIGS[kind])).save_pretrained(tmp_path)
    contents = open_run(tmp_path).checkpoints[0].contents
    assert not contents.skips and not contents.notes
    assert {p.role for p in contents.parameters.values()} == ROLES_OF[kind]
    assert contents.heads is not None and (contents.heads.count, contents.heads.size) == (4, 8)


def test_the_maps_of_xlnet_are_outputs_by_inputs(tmp_path: Path) -> None:
    config = transformers.XLNetConfig(vocab_size=64, **CONFIGS["XLNetLMHeadModel"])
    model = transformers.XLNetLMHeadModel(config)
    model.save_pretrained(tmp_path)
    parameters = open_run(tmp_path).checkpoints[0].contents.parameters
    held, x = model.transformer.layer[1].rel_attn, torch.randn(32)
    given = {
        "q": torch.einsum("h,hnd->nd", x, held.q).flatten(),
        "r": torch.einsum("h,hnd->nd", x, held.r).flatten(),
        "o": torch.einsum("nd,hnd->h", x.reshape(4, 8), held.o),
    }
    for name, expected in given.items():
        tensor = parameters[f"transformer.layer.1.rel_attn.{name}"].tensor
        assert tensor is not None
        assert tensor.read() @ x.numpy() == pytest.approx(expected.detach().numpy(), abs=1e-5)
