"""Tiny random models of transformers, and what they compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY = 16, 24, 2, 4, 40
IDS = torch.arange(18).reshape(2, 9) * 7 % VOCABULARY


def llama(*, tied: bool = True, layers: int = LAYERS) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
            tie_word_embeddings=tied,
        )
    )


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            vocab_size=VOCABULARY,
            n_positions=32,
            bos_token_id=0,
            eos_token_id=0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def qwen2() -> nn.Module:
    return Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            vocab_size=VOCABULARY,
        )
    )


def opt() -> nn.Module:
    return OPTForCausalLM(
        OPTConfig(
            hidden_size=WIDTH,
            ffn_dim=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            vocab_size=VOCABULARY,
            max_position_embeddings=32,
            word_embed_proj_dim=WIDTH,
            dropout=0.0,
        )
    )


def bert() -> nn.Module:
    return BertForMaskedLM(
        BertConfig(
            hidden_size=WIDTH,
            intermediate_size=HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            vocab_size=VOCABULARY,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


class Perceptron(nn.Module):
    """A model of nobody's: biases, and no blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.first, self.second = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, VOCABULARY)
        self.register_buffer("seen", torch.tensor(3))

    def forward(self, ids: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(self.embed(ids))))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "llama": llama,
    "gpt2": gpt2,
    "qwen2": qwen2,
    "opt": opt,
    "bert": bert,
    "perceptron": Perceptron,
}


def made(name: str, seed: int = 3) -> nn.Module:
    """The model of a name, always the same, with biases that are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name]()
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
    return model


def logits(model: nn.Module) -> Tensor:
    found = model(IDS)
    return found if isinstance(found, Tensor) else found.logits


def loss_of(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    found = model(ids)
    found = found if isinstance(found, Tensor) else found.logits
    return nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def change(before: Tensor, after: Tensor) -> float:
    """The largest change of a logit, over the largest logit."""
    return float(((after - before).abs().max() / before.abs().max()).detach())
