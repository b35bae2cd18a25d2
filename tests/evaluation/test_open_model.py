from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file

import rankscope as rs
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.hugging_face import hugging_face_model
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.model_parts import ModelParts
from rankscope.evaluation.open_model import OpenOptions, open_encoder, open_text_model
from rankscope.scoring.likelihood import span_losses
from rankscope.scoring.text_model import Span, TextModel
from rankscope.training.data.corpus_tokenizer import text_encoder
from rankscope.training.data.tokenizer import byte_tokenizer
from tests.evaluation.models import (
    DOCUMENTS,
    WINDOW,
    only_checkpoint,
    write_hugging_face,
    write_own_run,
    write_tokenizer,
)

END = "<|endoftext|>"
DEFAULT = OpenOptions()


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Checkpoints of steps 0, 3, 4 and 6; the first has adapters that are still zero."""
    torch.set_num_threads(1)
    return write_own_run(tmp_path_factory.mktemp("own") / "run")


@pytest.fixture
def copied(own_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(own_run.path, tmp_path / "run")
    return only_checkpoint(tmp_path / "run")[1]


def losses(model: TextModel) -> Any:
    """Of the documents, as much of each as the window takes."""
    ids = [document[: model.context] for document in model.encoder.encode(DOCUMENTS)]
    start = model.encoder.prefix
    assert start is not None
    return span_losses(model, [Span([start, *document], len(document)) for document in ids])


@pytest.mark.slow
def test_our_checkpoints_score_as_in_transformers_and_peft(
    own_run: Run,
) -> None:
    checkpoint = own_run[6]
    factors = load_file(checkpoint.path / "adapter" / "adapter_model.safetensors")
    assert all(bool(factor.any()) for factor in factors.values())
    model = open_text_model(checkpoint, own_run, DEFAULT)
    parts = ModelParts(checkpoint.path, checkpoint.path / "adapter")
    reference = hugging_face_model(parts, model.encoder, device="cpu", precision="float32")
    np.testing.assert_allclose(losses(model), losses(reference), rtol=0, atol=1e-4)
    assert (model.context, model.vocab_size) == (reference.context, reference.vocab_size)
    bare = ModelParts(checkpoint.path)
    without = hugging_face_model(bare, model.encoder, device="cpu", precision="float32")
    assert np.abs(losses(without) - losses(model)).min() > 1e-3


def test_its_context_is_the_sequence_length_of_its_training(own_run: Run) -> None:
    assert open_text_model(own_run[0], own_run, DEFAULT).context == WINDOW


def test_its_ids_are_those_of_the_training(own_run: Run) -> None:
    stored = (own_run.path / "tokenizer.json").read_text()
    end = json.loads((own_run[0].path / "config.json").read_text())["eos_token_id"]
    expected, found = text_encoder(stored, end), open_encoder(own_run[0], own_run, DEFAULT)
    assert found.encode(DOCUMENTS) == expected.encode(DOCUMENTS)
    assert (found.prefix, found.prefix_name) == (expected.prefix, expected.prefix_name)
    assert (found.prefix_name, found.digest) == (f"EOS {END}", expected.digest)


def test_its_bfloat16_is_near_its_float32(own_run: Run) -> None:
    exact = open_text_model(own_run[6], own_run, DEFAULT)
    rounded = open_text_model(own_run[6], own_run, OpenOptions(precision="bfloat16"))
    assert not np.array_equal(losses(rounded), losses(exact))
    np.testing.assert_allclose(losses(rounded), losses(exact), rtol=0.05)


@pytest.mark.parametrize(
    ("prefix", "token"), [("auto", 256), ("bos", 256), ("eos", 256), ("none", None), ("a", 97)]
)
def test_the_prefix_is_as_asked_and_in_the_digest(
    own_run: Run, prefix: str, token: int | None
) -> None:
    encoder = open_encoder(own_run[0], own_run, OpenOptions(prefix=prefix))
    assert encoder.prefix == token
    default = open_encoder(own_run[0], own_run, DEFAULT)
    assert (encoder.digest == default.digest) == (token == default.prefix)
    assert encoder.encode(["ab"]) == [[97, 98]]


def test_an_encoder_that_is_open_is_used(own_run: Run) -> None:
    encoder = open_encoder(own_run[0], own_run, OpenOptions(prefix="none"))
    assert open_text_model(own_run[0], own_run, DEFAULT, encoder=encoder).encoder is encoder


def test_a_run_without_a_tokenizer_needs_one_given(copied: Run, tmp_path: Path) -> None:
    (copied.path / "tokenizer.json").rename(tmp_path / "kept.json")
    with pytest.raises(RankscopeError, match=r"token ids.*`tokenizer`"):
        open_encoder(copied[6], copied, DEFAULT)
    given = OpenOptions(tokenizer=str(tmp_path / "kept.json"))
    assert open_encoder(copied[6], copied, given).prefix_name == f"EOS {END}"
    with pytest.raises(WrongSettingError, match="nowhere: does not exist"):
        OpenOptions(tokenizer="nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongSettingError, match=r"empty: is neither a tokenizer\.json nor"):
        open_encoder(copied[6], copied, OpenOptions(tokenizer=str(tmp_path / "empty")))


def test_a_given_tokenizer_wins(own_run: Run, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    given = open_encoder(own_run[0], own_run, OpenOptions(tokenizer=str(tmp_path)))
    default = open_encoder(own_run[0], own_run, DEFAULT)
    assert given.digest != default.digest
    assert len(given.encode(DOCUMENTS)[0]) < len(default.encode(DOCUMENTS)[0])


@pytest.mark.parametrize("name", ["model.safetensors", "adapter/adapter_model.safetensors"])
def test_a_damaged_checkpoint_of_the_trainer_is_one_line(copied: Run, name: str) -> None:
    (copied[6].path / name).write_bytes(b"damaged")
    with pytest.raises(RankscopeError, match=r"step-00000006: is not a complete checkpoint"):
        open_text_model(copied[6], copied, DEFAULT)


def test_a_hugging_face_folder_opens_with_its_tokenizer(tmp_path: Path) -> None:
    write_hugging_face(tmp_path / "checkpoint-5", "gpt2")
    checkpoint, run = only_checkpoint(tmp_path)
    model = open_text_model(checkpoint, run, DEFAULT)
    assert model.encoder.prefix_name == f"EOS {END}"
    assert np.isfinite(losses(model)).all()


@pytest.mark.parametrize("place", ["", "checkpoint-7"], ids=["run", "last checkpoint"])
def test_the_tokenizer_may_be_in_the_run_or_its_last_checkpoint(tmp_path: Path, place: str) -> None:
    for step in (5, 7):
        write_hugging_face(tmp_path / f"checkpoint-{step}")
        for file in (tmp_path / f"checkpoint-{step}").glob("tokenizer*"):
            file.unlink()
    run = only_checkpoint(tmp_path)[1]
    with pytest.raises(RankscopeError, match="no tokenizer found"):
        open_encoder(run[5], run, DEFAULT)
    byte_tokenizer().save(str(tmp_path / place / "tokenizer.json"))
    assert open_encoder(run[5], run, DEFAULT).encode(["ab"]) == [[97, 98]]


def test_an_adapter_opens_on_its_base_with_its_tokenizer(tmp_path: Path) -> None:
    base = write_hugging_face(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type=TaskType.CAUSAL_LM)
    with quiet_transformers():
        model = get_peft_model(base, config)
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(str(tmp_path / "run" / "checkpoint-5"))
    checkpoint, run = only_checkpoint(tmp_path / "run")
    assert checkpoint.layout == "peft"
    assert np.isfinite(losses(open_text_model(checkpoint, run, DEFAULT))).all()
    (tmp_path / "text.txt").write_text("the cat sat on the mat " * 4)
    asked: dict[str, Any] = {"text": tmp_path / "text.txt", "document_perplexity": False}
    known = rs.evaluate(tmp_path / "run", **asked)
    (tmp_path / "base").rename(tmp_path / "moved")
    refused(checkpoint, run, "its base model '.*base' is not on this machine.* as `base`")
    found = rs.evaluate(tmp_path / "run", base=tmp_path / "moved", **asked)
    pd.testing.assert_frame_equal(found, known)


def refused(checkpoint: Checkpoint, run: Run, message: str) -> None:
    for open_either in (open_encoder, open_text_model):
        with pytest.raises(RankscopeError, match=message) as caught:
            open_either(checkpoint, run, DEFAULT)
        assert caught.value.reason == "no-model"


def test_a_layout_without_a_model_to_run_is_refused(tmp_path: Path) -> None:
    weights = {"transformer.h.0.mlp.c_fc.weight": torch.ones(8, 2)}
    torch.save(
        {"model": weights, "model_args": {"n_layer": 1}, "iter_num": 3}, tmp_path / "ckpt.pt"
    )
    checkpoint, run = only_checkpoint(tmp_path)
    refused(checkpoint, run, f"is of the layout {checkpoint.layout}.*Hugging Face")


def test_weights_without_a_config_are_refused(tmp_path: Path) -> None:
    write_hugging_face(tmp_path / "checkpoint-5")
    (tmp_path / "checkpoint-5" / "config.json").unlink()
    refused(*only_checkpoint(tmp_path), r"lacks config\.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(own_run: Run) -> None:
    with pytest.raises(WrongSettingError, match=r"`device`.*no GPU"):
        open_text_model(own_run[0], own_run, OpenOptions(device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_losses(own_run: Run) -> None:
    on_gpu = open_text_model(own_run[6], own_run, OpenOptions(device="cuda"))
    on_cpu = open_text_model(own_run[6], own_run, DEFAULT)
    np.testing.assert_allclose(losses(on_gpu), losses(on_cpu), rtol=1e-3)


@pytest.mark.parametrize("wrong", [{"device": "tpu"}, {"precision": "float16"}])
def test_unknown_options_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(WrongSettingError, match="unknown name"):
        OpenOptions(**wrong)  # type: ignore[arg-type]
