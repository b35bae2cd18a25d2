"""How long a run takes: a few real steps are timed, on random weights and tokens.

t sequence length, d hidden size, L blocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from rankscope.dry_run.memory import memory_estimate
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import target_shapes, trained_parameters, wrap
from rankscope.training.config import BatchConfig, Config
from rankscope.training.model import LanguageModel
from rankscope.training.parameter_counts import ParameterCounts

SLOW_CPU = 2e10  # operations a second that any CPU reaches
FIRST_LENGTH = 32  # tokens of the first, smallest trial
USABLE = 0.8  # part of the device's memory that a trial may take


@dataclass(frozen=True)
class Timing:
    """What a step takes on this device.

    Attributes
    ----------
    tokens
        So many were learned from at once when it was timed; a micro-batch where that went.
    seconds
        Forward and backward pass of these tokens.
    optimizer_seconds
        One update of the parameters.
    """

    tokens: int
    seconds: float
    optimizer_seconds: float

    def step_seconds(self, batch: BatchConfig) -> float:
        """Time of a whole step, if time is proportional to tokens."""
        return self.seconds * batch.tokens / self.tokens + self.optimizer_seconds

    def forward_seconds(self, tokens: int) -> float:
        """Time of a forward pass alone, if the backward pass takes twice as long."""
        return self.seconds * tokens / self.tokens / 3


def operations_per_token(config: Config, counts: ParameterCounts) -> float:
    """Floating-point operations of learning from one token.

    2 an entry of a matrix in the forward pass, 2 for the gradient of its input and 2 for its own,
    which a frozen one does not have; and 6 t d in each block for attention to the tokens before,
    t/2 of them in the mean.
    """
    model, t = config.model, config.batch.sequence_length
    attention = 6 * t * model.hidden_size * model.num_hidden_layers
    matrices = counts.projections + counts.head + counts.adapters
    return 6 * matrices - 2 * counts.wrapped + attention


def measured_timing(
    config: Config, counts: ParameterCounts, vocab_size: int, *, seconds: float
) -> Timing | None:
    """Time forward pass, backward pass and optimizer step of a phase.

    One short sequence is timed first, then longer and more of them, up to one micro-batch, as far
    as time and memory allow. Not with ``torch.compile``.

    Parameters
    ----------
    config, counts
        The run and its phase.
    vocab_size
        Rows of the embedding.
    seconds
        About what this may take.

    Returns
    -------
    None where nothing can be timed: no such device, or the least trial takes too much.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        return None
    sizes = list(_iter_sizes(config.batch))
    least = sizes[0][0] * sizes[0][1] * operations_per_token(config, counts)
    if not _fits(config, counts, sizes[0]) or (
        config.device == "cpu" and least / SLOW_CPU > seconds
    ):
        return None
    timed = None
    with suppress(torch.OutOfMemoryError):  # what is estimated to fit may yet not
        trial = _Trial(config, counts, vocab_size)
        timed = trial.timed(*sizes[0])
        began = time.perf_counter()  # only now: the first steps of a process load libraries
        for sequences, length in sizes[1:]:
            expected = 2 * timed.seconds * sequences * length / timed.tokens
            left = began + seconds - time.perf_counter()
            if expected > left or not _fits(config, counts, (sequences, length)):
                break
            timed = trial.timed(sequences, length)
    return timed


class _Trial:
    """A model to be timed; what it learns is noise."""

    def __init__(self, config: Config, counts: ParameterCounts, vocab_size: int) -> None:
        self.config, self.vocab_size = config, vocab_size
        with torch.random.fork_rng(_gpus(config.device)), torch.device(config.device):
            self.model = LanguageModel(config.model, vocab_size)
            if counts.adapters:
                self._wrap()
        self.optimizer = torch.optim.AdamW(trained_parameters(self.model), lr=1e-6, fused=True)

    def _wrap(self) -> None:
        adapter, make = self.config.adapter, Cycles(self.config).layer
        for name, shape in target_shapes(self.model, adapter.target_modules).items():
            a = torch.rand(min(adapter.rank, *shape), shape[1])
            wrap(self.model, name, a, scale=adapter.scale(len(a)), make=make)

    def timed(self, sequences: int, length: int) -> Timing:
        """Time a step twice and take the better: the first one has to set things up."""
        generator = torch.Generator(self.config.device).manual_seed(0)
        shape = sequences, length + 1
        tokens = torch.randint(
            self.vocab_size, shape, generator=generator, device=self.config.device
        )
        runs = [self._run(tokens) for _ in range(2)]
        return Timing(sequences * length, *(min(both) for both in zip(*runs, strict=True)))

    def _run(self, tokens: Tensor) -> tuple[float, float]:
        """Seconds of forward and backward pass, and of the optimizer."""
        device, bfloat16 = self.config.device, self.config.precision == "bfloat16"
        began = self._now()
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = self.model.loss(tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        learned = self._now()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return learned - began, self._now() - learned

    def _now(self) -> float:
        if self.config.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def device_memory(device: str) -> int:
    """Bytes of memory: all of this machine's, or what is free of the GPU's."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _iter_sizes(batch: BatchConfig) -> Iterator[tuple[int, int]]:
    """Sequences and their length, from a short one to a micro-batch."""
    sequences, length = 1, min(FIRST_LENGTH, batch.sequence_length)
    yield sequences, length
    while length < batch.sequence_length:
        length = min(4 * length, batch.sequence_length)
        yield sequences, length
    while sequences < batch.sequences_at_once:
        sequences = min(4 * sequences, batch.sequences_at_once)
        yield sequences, length


def _fits(config: Config, counts: ParameterCounts, size: tuple[int, int]) -> bool:
    needed = memory_estimate(config, counts, sequences=size[0], sequence_length=size[1]).total
    return needed < USABLE * device_memory(config.device)


def _gpus(device: str) -> list[int]:
    return [torch.cuda.current_device()] if device == "cuda" else []
