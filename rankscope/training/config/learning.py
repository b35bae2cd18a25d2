"""Settings of what is learned: data, model, batches and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from rankscope.errors import WrongSettingError
from rankscope.training.config.checks import (
    at_least,
    in_unit_interval,
    multiple_of,
    not_negative,
    one_of,
    positive,
)

TOKENIZERS = ("bytes", "bpe")
Order = Literal["random", "epochs"]
Initialisation = Literal["normal", "torch"]


@dataclass(frozen=True)
class DataConfig:
    """The text that is learned, its tokens, and their order."""

    source: str = "pydoc_data.topics"  # this module's text, a text or token file, a prepared folder
    # A prepared folder has its own tokenizer, vocabulary and held-out part, so the next three
    # settings do not matter for it.
    tokenizer: str = "bytes"  # or "bpe": byte pairs trained on it; or the path of a tokenizer.json
    vocab_size: int = 4096  # for "bpe" and for files of token ids; "bytes" always has 257
    validation_fraction: float = 0.05
    order: Order = "random"  # sequences at random positions, or "epochs": each once per epoch

    def __post_init__(self) -> None:
        if not self.tokenizer.endswith(".json"):
            one_of("data.tokenizer", self.tokenizer, (*TOKENIZERS, "PATH/tokenizer.json"))
        one_of("data.order", self.order, get_args(Order))
        if self.tokenizer == "bpe" and self.vocab_size < 257:
            raise WrongSettingError(
                f"data.vocab_size = {self.vocab_size} is too small: data.tokenizer = 'bpe' needs "
                "at least 257, the bytes and an end of document"
            )
        at_least("data.vocab_size", self.vocab_size, 1)
        if not 0 < self.validation_fraction <= 0.5:
            raise WrongSettingError(
                f"data.validation_fraction = {self.validation_fraction} must be in (0, 0.5]"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama decoder and its initial weights."""

    hidden_size: int = 64
    intermediate_size: int = 176
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    vocab_size: int = 0  # rows of the embedding, at least the data's vocabulary; 0: just those
    tie_word_embeddings: bool = False  # the output layer is the embedding
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initialisation: Initialisation = (
        "normal"  # N(0, initializer_range²), or the defaults of "torch"
    )
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        at_least("model.num_hidden_layers", self.num_hidden_layers, 1)
        at_least("model.intermediate_size", self.intermediate_size, 1)
        at_least("model.num_key_value_heads", self.num_key_value_heads, 1)
        at_least("model.vocab_size", self.vocab_size, 0)
        one_of("model.initialisation", self.initialisation, get_args(Initialisation))
        for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
            positive(f"model.{name}", getattr(self, name))
        multiple_of(
            "model.num_attention_heads",
            self.num_attention_heads,
            "model.num_key_value_heads",
            self.num_key_value_heads,
        )
        # Rotary embeddings rotate pairs of coordinates, so a head needs an even number.
        multiple_of(
            "model.hidden_size",
            self.hidden_size,
            "2 x model.num_attention_heads",
            2 * self.num_attention_heads,
        )

    @property
    def head_dim(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class BatchConfig:
    """The sequences of one optimizer step."""

    sequences: int = 16
    sequence_length: int = 64
    micro_sequences: int = 0  # in one forward pass, to save memory; 0: all at once

    def __post_init__(self) -> None:
        at_least("batch.sequences", self.sequences, 1)
        at_least("batch.sequence_length", self.sequence_length, 1)
        at_least("batch.micro_sequences", self.micro_sequences, 0)
        if self.micro_sequences:
            multiple_of(
                "batch.sequences", self.sequences, "batch.micro_sequences", self.micro_sequences
            )

    @property
    def tokens(self) -> int:
        """Tokens learned from in one step."""
        return self.sequences * self.sequence_length

    @property
    def sequences_at_once(self) -> int:
        """Sequences in one forward pass."""
        return self.micro_sequences or self.sequences


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and gradient clipping; no decay by default, since it would not reach frozen weights."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm of a step; 0: no clipping
    tolerated_skips: int = 3  # steps in a row that may be skipped because a loss is not finite

    def __post_init__(self) -> None:
        in_unit_interval("optimizer.beta1", self.beta1)
        in_unit_interval("optimizer.beta2", self.beta2)
        positive("optimizer.eps", self.eps)
        not_negative("optimizer.clip", self.clip)
        not_negative("optimizer.weight_decay", self.weight_decay)
        at_least("optimizer.tolerated_skips", self.tolerated_skips, 0)
