from __future__ import annotations

import json
import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import logging as transformers_logging

from rankscope.errors import RankscopeError
from rankscope.evaluation import hugging_face
from rankscope.evaluation.hugging_face import hugging_face_model
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.model_parts import ModelParts
from rankscope.scoring.text_model import TextModel
from tests.evaluation.models import (
    CAUSAL,
    NO_ENCODER,
    WINDOW,
    WORDS,
    new_model,
    write_hugging_face,
)


def opened(folder: Path, adapter: Path | None = None, **settings: Any) -> TextModel:
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"} | settings
    return hugging_face_model(ModelParts(folder, adapter), NO_ENCODER, **options)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(WORDS, (3, WINDOW + 1), generator=generator)
    return tokens, torch.rand(3, WINDOW, generator=generator) < 0.6


def losses_of(model: TextModel) -> Tensor:
    with torch.inference_mode():
        return model.token_losses(*batch())


def by_definition(model: Any) -> Tensor:
    """−ln p by float64 logits of a model of transformers."""
    tokens, counted = batch()
    with torch.inference_mode():
        log_p = model.double()(tokens[:, :-1]).logits.log_softmax(-1)
    losses: Tensor = -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)[counted]
    return losses


@pytest.mark.parametrize("make", CAUSAL)
def test_losses_are_those_of_the_logits_in_float64(tmp_path: Path, make: str) -> None:
    reference = write_hugging_face(tmp_path, make)
    model = opened(tmp_path)
    found = losses_of(model)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_definition(reference), atol=1e-4, rtol=0)
    assert (model.vocab_size, model.context) == (WORDS, WINDOW)


def test_chunks_of_the_logits_do_not_change_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hugging_face(tmp_path)
    whole = losses_of(opened(tmp_path))
    monkeypatch.setitem(hugging_face.CHUNK_BYTES, "cpu", 7 * 4 * WORDS)
    torch.testing.assert_close(losses_of(opened(tmp_path)), whole)


def test_nothing_counted_is_no_loss(tmp_path: Path) -> None:
    write_hugging_face(tmp_path)
    tokens, counted = batch()
    assert opened(tmp_path).token_losses(tokens, torch.zeros_like(counted)).shape == (0,)


@pytest.mark.parametrize("make", CAUSAL)
def test_later_tokens_do_not_change_a_loss(tmp_path: Path, make: str) -> None:
    write_hugging_face(tmp_path, make)
    model, (tokens, counted) = opened(tmp_path), batch()
    counted[:, 9:] = False
    padded = tokens.clone()
    padded[:, 10:] = 0
    torch.testing.assert_close(
        model.token_losses(tokens, counted), model.token_losses(padded, counted)
    )


def test_the_logits_of_a_batch_fit_into_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hugging_face(tmp_path)
    monkeypatch.setitem(hugging_face.LOGIT_BYTES, "cpu", 40 * 4 * WORDS + 3)
    assert opened(tmp_path).tokens_at_once == 40


@pytest.mark.parametrize("kind", ["shards", "bin", "bin in shards"])
def test_weights_in_shards_and_older_files_are_the_same_weights(tmp_path: Path, kind: str) -> None:
    whole, other = tmp_path / "whole", tmp_path / "other"
    reference = write_hugging_face(whole)
    reference.save_pretrained(other, max_shard_size="20KB" if "shards" in kind else "1GB")
    if "bin" in kind:
        _as_bin(other)
    assert (len(list(other.glob("*-of-*"))) > 1) == ("shards" in kind)
    assert torch.equal(losses_of(opened(other)), losses_of(opened(whole)))


def _as_bin(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        name = path.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
        torch.save(load_file(path), folder / name)
        path.unlink()
    for index in folder.glob("*.index.json"):
        listing = index.read_text()
        listing = listing.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(listing)
        index.unlink()


def test_a_tied_head_is_no_missing_weight(tmp_path: Path) -> None:
    reference = write_hugging_face(tmp_path, "llama", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    found = losses_of(opened(tmp_path)).double()
    torch.testing.assert_close(found, by_definition(reference), atol=1e-4, rtol=0)


def _drop(part: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def _put(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: tensors | {name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop(".1.mlp"), r"'model\.layers\.1\.mlp\.down_proj\.weight': is missing .*and 2 more"),
        (_drop("lm_head"), "'lm_head.weight': is missing"),
        (
            _put("lm_head.weight", WORDS + 1, 16),
            rf"'lm_head.weight': has the shape \[{WORDS + 1}, 16\].*\[{WORDS}, 16\]",
        ),
        (_put("model.layers.0.self_attn.q_proj.lora_A.weight", 2, 16), "belongs to an adapter"),
    ],
    ids=["missing", "head", "shape", "adapter"],
)
def test_weights_that_are_not_the_model_s_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    write_hugging_face(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    refused(tmp_path, message, reason=None)


def refused(
    folder: Path, message: str, *, reason: str | None = "no-model", adapter: Path | None = None
) -> None:
    with pytest.raises(RankscopeError, match=message) as caught:
        opened(folder, adapter)
    assert "\n" not in str(caught.value)
    assert reason in (None, caught.value.reason)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    write_hugging_face(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:-100])
    refused(tmp_path, "cannot open it as a causal language model")


@pytest.mark.parametrize(
    "entry", [{"hidden_size": 10**7}, {"vocab_size": 10**10}, {"num_hidden_layers": 10**5}]
)
def test_a_config_of_a_far_larger_model_is_refused_before_it_is_made(
    tmp_path: Path, entry: dict[str, int]
) -> None:
    write_hugging_face(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | entry))
    refused(tmp_path, f"its {next(iter(entry))} is .*, and its weights have at most")


def test_a_config_of_fewer_layers_is_refused(tmp_path: Path) -> None:
    """Transformers would run the first of them alone."""
    write_hugging_face(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": config["num_hidden_layers"] - 1})
    )
    refused(tmp_path, "belongs to a layer that config.json does not make", reason=None)


@pytest.mark.parametrize("memory", ["4GB", "1kB"])
def test_a_file_that_shrinks_later_does_not_end_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """With memory for reading the files, and without: then all that was mapped is copied."""
    monkeypatch.setenv("RANKSCOPE_MEMORY", memory)
    write_hugging_face(tmp_path)
    model = opened(tmp_path)
    before = losses_of(model)
    mapped = Path("/proc/self/maps").read_text()
    assert str(tmp_path / "model.safetensors") not in mapped
    os.truncate(tmp_path / "model.safetensors", 3000)
    assert torch.equal(losses_of(model), before)


@pytest.mark.parametrize("std", [0.3, 0.02], ids=["large", "as drawn"])
def test_an_encoder_is_refused_since_it_looks_ahead(tmp_path: Path, std: float) -> None:
    new_model("bert", std=std).save_pretrained(tmp_path)
    refused(tmp_path, "is not a causal language model")


def test_an_encoder_with_a_decoder_is_refused(tmp_path: Path) -> None:
    new_model("t5").save_pretrained(tmp_path)
    refused(tmp_path, "an encoder with a decoder .*'t5'")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "unheard_of"}, "unheard_of"),
        (
            {"model_type": "unheard_of", "auto_map": {"AutoConfig": "mine.MyConfig"}},
            "comes with its own code.*`trust_remote_code`",
        ),
    ],
    ids=["unknown", "own code"],
)
def test_a_model_that_transformers_do_not_know_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_hugging_face(tmp_path)
    config = json.loads((tmp_path / "config.json").read_bytes()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({"max_position_embeddings": 7}, 7),
        ({"n_positions": 8}, 8),
        ({"max_seq_len": 9, "max_position_embeddings": None}, 9),
        ({}, hugging_face.UNSTATED_CONTEXT),
    ],
)
def test_the_context_is_what_the_config_states_under_any_name(
    settings: dict[str, Any], window: int
) -> None:
    assert hugging_face._context(type("Config", (), settings)) == window


def test_a_diverged_model_opens_and_its_losses_say_so(tmp_path: Path) -> None:
    model = new_model("llama")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    model.save_pretrained(tmp_path)
    assert losses_of(opened(tmp_path)).isnan().all()


def test_bfloat16_rounds_the_model_and_not_the_losses(tmp_path: Path) -> None:
    write_hugging_face(tmp_path)
    exact, rounded = losses_of(opened(tmp_path)), losses_of(opened(tmp_path, precision="bfloat16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded.mean(), exact.mean(), rtol=0.02, atol=0)


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, Any]:
    """A LoRA on a model in the folder ``base``: its folder, and the model with it."""
    base = write_hugging_face(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type=TaskType.CAUSAL_LM)
    with quiet_transformers():
        model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter", model


def test_an_adapter_counts(tmp_path: Path, adapter: tuple[Path, Any]) -> None:
    folder, reference = adapter
    found = losses_of(opened(tmp_path / "base", folder))
    torch.testing.assert_close(found.double(), by_definition(reference), atol=1e-4, rtol=0)
    assert not torch.allclose(found, losses_of(opened(tmp_path / "base")))


def test_an_adapter_with_missing_weights_is_refused(
    tmp_path: Path, adapter: tuple[Path, Any]
) -> None:
    tensors = load_file(adapter[0] / "adapter_model.safetensors")
    save_file(dict(list(tensors.items())[1:]), adapter[0] / "adapter_model.safetensors")
    refused(tmp_path / "base", "missing adapter keys", reason=None, adapter=adapter[0])


def test_an_adapter_that_changes_no_weights_is_refused(tmp_path: Path) -> None:
    base = write_hugging_face(tmp_path / "base")
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=2)
    with quiet_transformers():
        get_peft_model(base, config).save_pretrained(str(tmp_path / "prompt"))
    refused(
        tmp_path / "base", "puts tokens before the text", reason=None, adapter=tmp_path / "prompt"
    )


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hugging_face(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(tmp_path, r"needs transformers: pip install", reason=None)


def test_opening_writes_nothing_asks_nobody_and_leaves_no_setting_behind(
    tmp_path: Path,
    adapter: tuple[Path, Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    capfd.readouterr()
    losses_of(opened(tmp_path / "base", adapter[0]))
    (tmp_path / "base" / "model.safetensors").unlink()
    refused(tmp_path / "base", "cannot open it")
    assert capfd.readouterr() == ("", "")
    assert transformers_logging.get_verbosity() == verbosity
    assert transformers_logging.is_progress_bar_enabled() == bars


def test_only_the_warning_that_matters_is_raised() -> None:
    with quiet_transformers():
        warnings.warn("something else", stacklevel=1)
        with pytest.raises(UserWarning, match="missing adapter keys"):
            warnings.warn("Found missing adapter keys while loading", stacklevel=1)
