"""How long a step takes on this device: a few real steps are timed, on random weights and tokens.

On a CPU a time is the shorter of the wall time and the processor time of all threads. With one
thread that is the processor time, which other programs hardly lengthen; with several threads on a
quiet machine it is the wall time. Only several threads on a busy machine are overestimated.

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

from rankscope.dry_run.size import memory_estimate
from rankscope.platforms import load_of_machine, memory_of_machine
from rankscope.training.adapters.lora_linear import trained_parameters
from rankscope.training.config import BatchConfig, Config
from rankscope.training.model import LanguageModel
from rankscope.training.parameter_counts import ParameterCounts, add_adapters
from rankscope.training.precision import forward_precision

SLOW_CPU = 2e10  # operations per second that any CPU reaches
FIRST_LENGTH = 32  # tokens of the first, smallest trial
USABLE = 0.8  # share of the device's memory that a trial may take
BUSY = 0.5  # processors that others may use before the machine counts as busy


@dataclass(frozen=True)
class StepTime:
    """What a step takes on this device.

    Attributes
    ----------
    tokens
        How many were learned from at once when it was timed; a micro-batch if possible.
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

    For each entry of a matrix 2 in the forward pass, 2 for the gradient of its input and 2 for its
    own gradient, which a frozen matrix does not have; and in each block 6 t d for attention to the
    tokens before, t/2 of them on average.
    """
    model, t = config.model, config.batch.sequence_length
    attention = 6 * t * model.hidden_size * model.num_hidden_layers
    matrices = counts.projections + counts.output + counts.adapters
    return 6 * matrices - 2 * counts.wrapped + attention


def measured_step(
    config: Config, counts: ParameterCounts, vocab_size: int, *, seconds: float
) -> StepTime | None:
    """Time forward pass, backward pass and optimizer step of a phase, without ``torch.compile``.

    One short sequence is timed first, then longer and more sequences, up to one micro-batch, as far
    as time and memory allow.

    Parameters
    ----------
    config, counts
        The run and its phase.
    vocab_size
        Rows of the embedding.
    seconds
        About how long this may take.

    Returns
    -------
    None if nothing can be timed: the device is missing, or the smallest trial takes too much.
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
    with suppress(torch.OutOfMemoryError):  # the estimate may be too low
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
                add_adapters(self.model, config)
        self.optimizer = torch.optim.AdamW(trained_parameters(self.model), lr=1e-6, fused=True)

    def timed(self, sequences: int, length: int) -> StepTime:
        """Time a step twice and take the better: the first one has to set things up."""
        generator = torch.Generator(self.config.device).manual_seed(0)
        shape = sequences, length + 1
        tokens = torch.randint(
            self.vocab_size, shape, generator=generator, device=self.config.device
        )
        runs = [self._run(tokens) for _ in range(2)]
        return StepTime(sequences * length, *(min(both) for both in zip(*runs, strict=True)))

    def _run(self, tokens: Tensor) -> tuple[float, float]:
        """Seconds of forward and backward pass, and of the optimizer."""
        began = self._now()
        with forward_precision(self.config):
            loss = self.model.loss(tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        learned = self._now()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._between(began, learned), self._between(learned, self._now())

    def _now(self) -> tuple[float, float]:
        """Wall and processor time."""
        if self.config.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def _between(self, start: tuple[float, float], end: tuple[float, float]) -> float:
        wall, processor = end[0] - start[0], end[1] - start[1]
        return wall if self.config.device == "cuda" else min(wall, processor)


def busy_line(device: str) -> str | None:
    """Say that other programs use the processors, if they do; None on a quiet machine or a GPU."""
    load, processors = load_of_machine(), os.cpu_count() or 1
    if device == "cuda" or load is None or load + torch.get_num_threads() <= processors + BUSY:
        return None
    return (
        f"busy machine: load {load:.1f} on {processors} processors, so a run now takes longer "
        "than these times"
    )


def device_memory(device: str) -> int:
    """Bytes of memory: all of this machine's, or what is free on the GPU."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return memory_of_machine()


def _iter_sizes(batch: BatchConfig) -> Iterator[tuple[int, int]]:
    """Numbers of sequences and their lengths, from one short sequence to a micro-batch."""
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
