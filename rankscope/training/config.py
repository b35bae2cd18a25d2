"""What a training run is told: a tree of frozen dataclasses that check themselves.

Everything that influences the trained weights stands here, so that the stored ``config.toml`` of a
run, the data and the program are enough to train it again. Field names of `ModelConfig` are those
of a Hugging Face ``config.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rankscope.errors import RankscopeError

METHODS = ("full", "relora", "lora")
TOKENIZERS = ("bytes", "bpe")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class DataConfig:
    """Which text is learned, and what a token is."""

    source: str = "pydoc_data.topics"  # this module's text, or the path of a text or token file
    tokenizer: str = "bytes"  # "bytes": 256 bytes and an end of document; "bpe": trained on it
    vocab_size: int = 4096  # for "bpe" and for files of token ids; 257 for "bytes" in any case
    validation_fraction: float = 0.05

    def __post_init__(self) -> None:
        _one_of("data.tokenizer", self.tokenizer, TOKENIZERS)
        if self.tokenizer == "bpe" and self.vocab_size < 257:
            raise RankscopeError(
                f"data.vocab_size = {self.vocab_size} is too small: data.tokenizer = 'bpe' needs "
                "at least 257, the bytes and an end of document"
            )
        _at_least("data.vocab_size", self.vocab_size, 1)
        if not 0 < self.validation_fraction <= 0.5:
            raise RankscopeError(
                f"data.validation_fraction = {self.validation_fraction} must lie in (0, 0.5]"
            )


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the Llama decoder; the vocabulary comes from the data."""

    hidden_size: int = 64
    intermediate_size: int = 176
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02  # standard deviation of every initial matrix

    def __post_init__(self) -> None:
        _at_least("model.num_hidden_layers", self.num_hidden_layers, 1)
        _at_least("model.intermediate_size", self.intermediate_size, 1)
        _at_least("model.num_key_value_heads", self.num_key_value_heads, 1)
        for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
            _positive(f"model.{name}", getattr(self, name))
        _multiple_of(
            "model.num_attention_heads",
            self.num_attention_heads,
            "model.num_key_value_heads",
            self.num_key_value_heads,
        )
        # Rotary embeddings turn pairs of coordinates, so a head needs an even number of them.
        _multiple_of(
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
class AdapterConfig:
    """The low-rank adapters of the methods ``relora`` and ``lora``."""

    rank: int = 4
    alpha: float = 8.0
    rank_stabilised: bool = False  # scale = alpha / sqrt(rank) instead of alpha / rank
    target_modules: tuple[str, ...] = PROJECTIONS

    def __post_init__(self) -> None:
        _at_least("adapter.rank", self.rank, 1)
        _positive("adapter.alpha", self.alpha)
        if not self.target_modules:
            raise RankscopeError("adapter.target_modules is empty: name at least one projection")
        for name in self.target_modules:
            _one_of("adapter.target_modules", name, PROJECTIONS)

    @property
    def scale(self) -> float:
        """Factor of the product B·A in the forward pass, in merges and on disk."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, how fast, and when the adapters restart; in optimizer steps."""

    steps: int = 1000
    learning_rate: float = 4e-3
    warmup_steps: int = 40
    minimum_ratio: float = 0.1  # the cosine ends at this part of the learning rate
    restart_every: int = 0  # 0: never
    restart_warmup_steps: int = 10

    def __post_init__(self) -> None:
        _at_least("schedule.steps", self.steps, 1)
        _positive("schedule.learning_rate", self.learning_rate)
        for name in ("warmup_steps", "restart_every", "restart_warmup_steps"):
            _at_least(f"schedule.{name}", getattr(self, name), 0)
        if not 0 < self.minimum_ratio <= 1:
            raise RankscopeError(
                f"schedule.minimum_ratio = {self.minimum_ratio} must lie in (0, 1]"
            )
        if self.warmup_steps >= self.steps:
            raise RankscopeError(
                f"schedule.warmup_steps = {self.warmup_steps} must be less than "
                f"schedule.steps = {self.steps}"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and gradient clipping. No decay by default: it would not reach a frozen weight."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm of one step

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise RankscopeError(f"optimizer.{name} = {getattr(self, name)} must lie in [0, 1)")
        _positive("optimizer.eps", self.eps)
        _positive("optimizer.clip", self.clip)
        if not self.weight_decay >= 0:
            raise RankscopeError(f"optimizer.weight_decay = {self.weight_decay} is negative")


@dataclass(frozen=True)
class BatchConfig:
    """The sequences of one optimizer step."""

    sequences: int = 16
    sequence_length: int = 64
    micro_sequences: int = 0  # so many at a time, to save memory; 0: all at once

    def __post_init__(self) -> None:
        _at_least("batch.sequences", self.sequences, 1)
        _at_least("batch.sequence_length", self.sequence_length, 1)
        _at_least("batch.micro_sequences", self.micro_sequences, 0)
        if self.micro_sequences:
            _multiple_of(
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
class LogConfig:
    """What is measured and kept along the way; none of it changes the weights."""

    log_every: int = 10
    eval_every: int = 125
    save_every: int = 125
    validation_tokens: int = 65536
    probe_sequences: int = 32  # for the gradients and for the loss around a merge

    def __post_init__(self) -> None:
        for name in (
            "log_every",
            "eval_every",
            "save_every",
            "validation_tokens",
            "probe_sequences",
        ):
            _at_least(f"log.{name}", getattr(self, name), 1)


@dataclass(frozen=True)
class Config:
    """A whole training run."""

    method: str = "full"
    out: str = "ckpts/run"
    seed: int = 1
    device: str = "cpu"
    precision: str = "float32"  # of the forward pass; parameters are float32 in any case
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        _one_of("method", self.method, METHODS)
        _one_of("device", self.device, DEVICES)
        _one_of("precision", self.precision, PRECISIONS)
        _at_least("seed", self.seed, 0)
        restart_every = self.schedule.restart_every
        if (self.method == "relora") != (restart_every > 0):
            need = "needs a positive one" if self.method == "relora" else "never restarts: set it 0"
            raise RankscopeError(
                f"schedule.restart_every = {restart_every} does not fit "
                f"method = {self.method!r}, which {need}"
            )


def _one_of(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise RankscopeError(f"{name} = {value!r} is none of {', '.join(choices)}")


def _at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise RankscopeError(f"{name} = {value} must be at least {minimum}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise RankscopeError(f"{name} = {value} must be positive and finite")


def _multiple_of(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value < divisor or value % divisor:
        raise RankscopeError(f"{name} = {value} must be a multiple of {divisor_name} = {divisor}")
