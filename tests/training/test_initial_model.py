from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.config import Config
from rankscope.training.initial_model import initial_model
from rankscope.training.run_folder.trained_model import trained_model
from rankscope.training.train import train

MakeConfig = Callable[..., Config]
VOCABULARY = 31
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
}


def hugging_face_folder(folder: Path, **others: Any) -> LlamaForCausalLM:
    """A model of transformers' own in a folder of its own."""
    torch.manual_seed(11)
    saving = {"max_shard_size": others.pop("max_shard_size", "5GB")}
    model = LlamaForCausalLM(LlamaConfig(**{**SHAPE, **others})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, **saving)
    return model


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"tie_word_embeddings": True},
        {"max_shard_size": "5KB"},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    ids=["plain", "tied", "shards", "theta"],
)
def test_a_run_starts_from_the_logits_of_transformers(
    make_config: MakeConfig, tmp_path: Path, tokens: torch.Tensor, others: dict[str, Any]
) -> None:
    theirs = hugging_face_folder(tmp_path / "llama", **others)
    settings = {
        "init": str(tmp_path / "llama"),
        "model.tie_word_embeddings": "tie_word_embeddings" in others,
        "model.rope_theta": others.get("rope_parameters", {}).get("rope_theta", 1e4),
    }
    ours = initial_model(make_config(settings), VOCABULARY)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)
    assert ours.training  # unlike the one that was read


def test_the_first_checkpoint_holds_the_weights_that_were_given(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    hugging_face_folder(tmp_path / "llama")
    config = make_config({"init": str(tmp_path / "llama"), "schedule.steps": 6})
    train(config)
    first = Path(config.out) / "checkpoints" / "step-00000000" / "model.safetensors"
    given = load_file(tmp_path / "llama" / "model.safetensors")
    for name, weight in load_file(first).items():
        assert torch.equal(weight, given[name]), name


@pytest.mark.slow
def test_a_run_starts_from_one_of_ours_with_its_live_adapter(
    make_config: MakeConfig, tmp_path: Path, tokens: torch.Tensor
) -> None:
    config = make_config({"out": str(tmp_path / "first"), "schedule.learning_rate": 0.05})
    train(config)
    last = tmp_path / "first" / "checkpoints" / "step-00000018"
    assert (last / "adapter").is_dir()
    ours = initial_model(make_config({"init": str(last)}), VOCABULARY)
    with torch.no_grad():
        assert torch.equal(ours(tokens), trained_model(last)(tokens))


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_folder_any_more(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    hugging_face_folder(tmp_path / "llama")
    settled = {
        "method": "phases",
        "phases.methods": ["full", "relora"],
        "phases.lengths": [9],
        "phases.switch": "stable_rank",
        "phases.probe_every": 2,
        "phases.tolerance": 1e9,
        "init": str(tmp_path / "llama"),
    }
    whole, part = (make_config({"out": str(tmp_path / n), **settled}) for n in ("whole", "part"))
    train(whole)
    train(part, max_minutes=0.0)
    (tmp_path / "llama" / "model.safetensors").unlink()
    train(part, resume=True)
    name = "checkpoints/step-00000018/model.safetensors"
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ({"model.hidden_size": 32}, "model.hidden_size is 16 there and 32 here"),
        ({"model.num_key_value_heads": 4}, "model.num_key_value_heads is 2 there and 4 here"),
        ({"model.vocab_size": 40}, "model.vocab_size is 31 there and 40 here"),
        (
            {"model.tie_word_embeddings": True},
            "model.tie_word_embeddings is False there and True here",
        ),
        ({"model.rope_theta": 500.0}, "model.rope_theta is 10000.0 there and 500.0 here"),
    ],
)
def test_weights_of_another_shape_are_refused_in_one_line(
    make_config: MakeConfig, tmp_path: Path, settings: dict[str, Any], listed: str
) -> None:
    folder = tmp_path / "llama"
    hugging_face_folder(folder)
    with pytest.raises(WrongSettingError) as error:
        initial_model(make_config({"init": str(folder), **settings}), VOCABULARY)
    assert str(error.value) == f"{folder}: has a model of another shape: {listed}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "its model_type is 'qwen2', and this trainer computes 'llama'"),
        ({"attention_bias": True}, "its attention_bias is True"),
        ({"hidden_act": "gelu"}, "its hidden_act is 'gelu'"),
        ({"head_dim": 8}, "its head_dim is 8"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "its rope_type is 'llama3'"),
    ],
)
def test_a_model_that_computes_something_else_is_refused(
    make_config: MakeConfig, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    hugging_face_folder(tmp_path / "llama")
    path = tmp_path / "llama" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RankscopeError, match=message):
        initial_model(make_config({"init": str(tmp_path / "llama")}), VOCABULARY)


def test_a_missing_weight_is_named(make_config: MakeConfig, tmp_path: Path) -> None:
    hugging_face_folder(tmp_path / "llama")
    path = tmp_path / "llama" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    with pytest.raises(
        RankscopeError, match=r"not a complete checkpoint .*Missing key.*model\.norm\.weight"
    ):
        initial_model(make_config({"init": str(tmp_path / "llama")}), VOCABULARY)


def test_a_folder_that_is_not_there_is_a_wrong_setting(make_config: MakeConfig) -> None:
    with pytest.raises(WrongSettingError, match="nowhere: does not exist, or is not a folder"):
        initial_model(make_config({"init": "nowhere"}), VOCABULARY)
