"""One parameter as embedding and output layer: learned by both uses, stored once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from rankscope.training.config import Config
from rankscope.training.model import LanguageModel
from rankscope.training.parameter_counts import parameter_counts
from rankscope.training.run_folder.trained_model import trained_model
from rankscope.training.train import train
from tests.analysis.series import analysed

MakeConfig = Callable[..., Config]
TIED = {"model.tie_word_embeddings": True}
FULL = {"method": "full", "schedule.restart_every": 0}
NAME = "model.embed_tokens.weight"


def test_the_gradient_is_the_sum_of_both_uses(
    make_model: Callable[..., LanguageModel], tokens: torch.Tensor
) -> None:
    tied, untied = make_model(FULL | TIED).double(), make_model(FULL).double()
    weights = {name: p.detach() for name, p in tied.named_parameters()}
    untied.load_state_dict({**weights, "lm_head.weight": weights[NAME]})
    for model in (tied, untied):
        model.loss(tokens).backward()
    uses = untied.model.embed_tokens.weight.grad, untied.lm_head.weight.grad
    assert all(use is not None and use.any() for use in uses)
    torch.testing.assert_close(tied.model.embed_tokens.weight.grad, uses[0] + uses[1])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("method", [{}, FULL], ids=["relora", "full"])
@pytest.mark.slow
def test_transformers_and_the_trainer_load_it(
    make_config: MakeConfig, tokens: torch.Tensor, method: dict[str, Any]
) -> None:
    config = make_config(TIED | method | {"schedule.learning_rate": 0.05})
    train(config)
    folder = Path(config.out) / "checkpoints" / "step-00000018"
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert json.loads((folder / "config.json").read_bytes())["tie_word_embeddings"] is True
    theirs: Any = LlamaForCausalLM.from_pretrained(folder)
    if not method:
        theirs = PeftModel.from_pretrained(theirs, folder / "adapter")
    ours = trained_model(folder)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(make_config: MakeConfig, tmp_path: Path) -> None:
    whole, part = (make_config({"out": str(tmp_path / n), **TIED}) for n in ("whole", "part"))
    train(whole)
    train(part, max_minutes=0.0)
    train(part, resume=True)
    name = "checkpoints/step-00000018/model.safetensors"
    assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_it_is_counted_once(make_config: MakeConfig) -> None:
    (tied,), (untied,) = (parameter_counts(make_config(one), 31) for one in (TIED, {}))
    assert (tied.head, tied.output) == (0, untied.head)
    assert untied.total - tied.total == untied.head == 31 * 16


@pytest.mark.slow
def test_the_analysis_reads_it_without_a_skip(make_config: MakeConfig) -> None:
    config = make_config(TIED)
    train(config)
    found = analysed(Path(config.out))
    assert not found.skips
    assert {"adapter", "merge", "weight"} <= {row["component"] for row in found.rows}
