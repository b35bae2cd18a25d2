"""Where the sequences of a step begin: a function of the seed and the step, and of nothing else.

Shapes: a sequence is t + 1 tokens, inputs all but the last, targets all but the first. There are
n windows to choose from and b are drawn a step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from rankscope.training.data.corpus import Corpus
from rankscope.training.keyed import keyed_generator


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
