"""One optimizer step of three models of the same size, and the memory that it needs.

A step is everything: loss, backward pass, clipping, fused AdamW.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from rankscope.keyed import keyed_generator
from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    target_shapes,
    trained_parameters,
    wrap,
)
from rankscope.training.config import PROJECTIONS, ModelConfig
from rankscope.training.model import LanguageModel

Loss = Callable[[Tensor], Tensor]  # of tokens (b, t + 1)
TRANSFORMERS, FULL, RELORA = "transformers", "full rank", "ReLoRA"


@dataclass(frozen=True)
class Case:
    """A size of model and batch."""

    model: ModelConfig
    vocab_size: int
    sequences: int
    sequence_length: int
    rank: int = 16

    @property
    def tokens(self) -> int:
        """Tokens of one step."""
        return self.sequences * self.sequence_length


CASES = {
    "demo": Case(ModelConfig(96, 256, 4, 4, 2), 257, 16, 64),
    "weiss2025-tiny": Case(ModelConfig(96, 384, 12, 12, 4), 4096, 8, 256),
}


@dataclass(frozen=True)
class Way:
    """How the steps are computed."""

    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False


class Arm:
    """A model that takes optimizer steps on the same batch."""

    def __init__(self, model: nn.Module, loss: Loss, tokens: Tensor, way: Way) -> None:
        self.model, self.tokens, self.way = model, tokens, way
        self.loss = torch.compile(loss) if way.compiled else loss
        self.parameters = trained_parameters(model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)

    def step(self) -> float:
        """Learn from the batch; return the loss before the update, once all is done."""
        with torch.autocast(self.way.device, torch.bfloat16, enabled=self.way.bf16):
            loss = self.loss(self.tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.way.device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def memory(self) -> dict[str, int]:
        """Bytes of the gradients and of the optimizer's state, from the tensors themselves."""
        self.step()
        state = chain.from_iterable(entry.values() for entry in self.optimizer.state.values())
        self.loss(self.tokens).backward()  # type: ignore[no-untyped-call]
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        sizes = {
            "gradients": sum(gradient.nbytes for gradient in gradients),
            "optimizer": sum(tensor.nbytes for tensor in state),
        }
        self.optimizer.zero_grad()
        return sizes


def arms(case: Case, way: Way) -> dict[str, Arm]:
    """The three arms, with the same initial weights, on the same tokens."""
    shape = (case.sequences, case.sequence_length + 1)
    generator = keyed_generator(1, "batch")
    tokens = torch.randint(case.vocab_size, shape, generator=generator).to(way.device)
    full, relora = _trainer_model(case), _trainer_model(case)
    _wrap_all(relora, case.rank)
    theirs = _transformers_model(case)
    theirs.load_state_dict(full.state_dict())

    def their_loss(tokens: Tensor) -> Tensor:
        ids, targets = tokens[:, :-1], tokens[:, 1:].contiguous()
        output = theirs(input_ids=ids, labels=targets, shift_labels=targets, use_cache=False)
        loss: Tensor = output.loss
        return loss

    return {
        TRANSFORMERS: Arm(theirs.to(way.device), their_loss, tokens, way),
        FULL: Arm(full.to(way.device), full.loss, tokens, way),
        RELORA: Arm(relora.to(way.device), relora.loss, tokens, way),
    }


def _trainer_model(case: Case) -> LanguageModel:
    model = LanguageModel(case.model, case.vocab_size)
    model.initialise(1)
    return model


def _wrap_all(model: LanguageModel, rank: int) -> None:
    def layer(weight: nn.Parameter, a: Tensor, scale: float) -> LoRALinear:
        return LoRALinear(weight, a, scale=scale)

    for name, (_, in_features) in target_shapes(model, PROJECTIONS).items():
        a = torch.randn(rank, in_features, generator=keyed_generator(1, "lora_A", name))
        wrap(model, name, a / in_features**0.5, scale=1.0, make=layer)


def _transformers_model(case: Case) -> LlamaForCausalLM:
    shape = case.model
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            max_position_embeddings=case.sequence_length,
            rms_norm_eps=shape.rms_norm_eps,
            tie_word_embeddings=False,
        )
    )
    model.train()
    return model
