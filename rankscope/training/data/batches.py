"""Batches of token ids, as functions of the step.

Shapes: b sequences, t + 1 tokens each: inputs are all but the last, targets all but the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from rankscope.training.config import BatchConfig
from rankscope.training.data.corpus import Corpus, Tokens
from rankscope.training.data.windows import epoch_starts, random_starts
from rankscope.training.keyed import keyed_generator


def training_batch(
    corpus: Corpus, batch: BatchConfig, *, seed: int, step: int, order: str = "random"
) -> Tensor:
    """Sequences of one step, (b, t + 1) int64: the same on every call.

    Parameters
    ----------
    corpus, batch
        Where from and how many. With several processes, each takes its share of what is returned.
    seed, step
        What the sequences depend on.
    order
        As ``data.order``: windows at independent random places, or each window once an epoch.
    """
    if order == "random":
        return random_windows(corpus, batch, batch.sequences, keyed_generator(seed, "batch", step))
    length = batch.sequence_length
    starts = epoch_starts(corpus, length, batch.sequences, seed=seed, step=step)
    return _windows(corpus.training, starts, length)


def random_windows(
    corpus: Corpus, batch: BatchConfig, sequences: int, generator: torch.Generator
) -> Tensor:
    """Windows of the training tokens that begin at independent random places, (b, t + 1) int64."""
    starts = random_starts(corpus, batch.sequence_length, sequences, generator)
    return _windows(corpus.training, starts, batch.sequence_length)


def iter_validation(corpus: Corpus, batch: BatchConfig, tokens: int) -> Iterator[Tensor]:
    """Yield the first ``tokens`` tokens of the held-out part in batches (b, t + 1), each once.

    A window's last token is the next one's first, which is how every token but the very first is
    a target exactly once; what does not fill a window at the end is left out.
    """
    length = batch.sequence_length
    available = min(tokens, len(corpus.validation) - 1)
    starts = range(0, max(1, available // length) * length, length)
    for first in range(0, len(starts), batch.sequences_at_once):
        chosen = starts[first : first + batch.sequences_at_once]
        yield _windows(corpus.validation, list(chosen), length)


def _windows(tokens: Tokens, starts: list[int], length: int) -> Tensor:
    windows = [tokens[start : start + length + 1] for start in starts]
    return torch.from_numpy(np.stack(windows).astype(np.int64))
