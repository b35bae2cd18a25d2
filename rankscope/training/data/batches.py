"""Batches of token ids, as functions of the seed and the step, and of nothing else.

Shapes: a batch has b sequences of t + 1 tokens: inputs are all but the last, targets all but the
first. There are n windows to choose from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.training.config import BatchConfig
from rankscope.training.data.corpus import Corpus, Tokens
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


def random_starts(
    corpus: Corpus, sequence_length: int, sequences: int, generator: torch.Generator
) -> list[int]:
    """Independent random places in the training tokens, each with a whole window after it."""
    places = len(corpus.training) - sequence_length
    starts: list[int] = torch.randint(places, (sequences,), generator=generator).tolist()
    return starts


def epoch_starts(
    corpus: Corpus, sequence_length: int, sequences: int, *, seed: int, step: int
) -> list[int]:
    """Places of a step where every window comes once in each pass through the training tokens.

    The windows of all passes are one sequence, pass after pass, each in a random order of its own;
    step s takes those from s b to (s + 1) b - 1. So a batch may hold the end of one pass and the
    beginning of the next.

    Where the corpus came in rows of t + 1 tokens, a window is a row. Otherwise windows are t
    tokens apart, which makes every token but the first a target once; what does not fill a window
    at the end is left out.
    """
    stride = window_stride(corpus, sequence_length)
    n = (len(corpus.training) - sequence_length - 1) // stride + 1
    places = range(step * sequences, (step + 1) * sequences)
    return [
        int(_order(n, seed, place // n)[place % n]) * stride for place in places
    ]  # of one epoch or of two, rarely more


def window_stride(corpus: Corpus, sequence_length: int) -> int:
    """Tokens from the beginning of one window to that of the next, see `epoch_starts`."""
    is_row = corpus.row_tokens == sequence_length + 1
    return sequence_length + 1 if is_row else sequence_length


@lru_cache(maxsize=2)  # the draw of 10^8 windows takes seconds; the end of an epoch needs two
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = torch.randperm(
        n, generator=keyed_generator(seed, "epoch", epoch)
    ).numpy()
    order.setflags(write=False)
    return order


def _windows(tokens: Tokens, starts: list[int], length: int) -> Tensor:
    windows = [tokens[start : start + length + 1] for start in starts]
    return torch.from_numpy(np.stack(windows).astype(np.int64))
