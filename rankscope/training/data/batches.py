"""Batches of token ids, as functions of only the seed and the step.

Shapes: a batch has b sequences of t + 1 tokens: inputs are all but the last, targets all but the
first. There are n sequences to choose from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.keyed import keyed_generator
from rankscope.training.config import BatchConfig
from rankscope.training.data.corpus import Corpus
from rankscope.training.data.token_files import Tokens


def training_batch(
    corpus: Corpus, batch: BatchConfig, *, seed: int, step: int, order: str = "random"
) -> Tensor:
    """Sequences of one step, (b, t + 1) int64: the same on every call.

    Parameters
    ----------
    corpus, batch
        The tokens, and the size of a batch. With several processes, each takes its share of what
        is returned.
    seed, step
        What the sequences depend on.
    order
        As ``data.order``: sequences from independent random positions, or each once per epoch.
    """
    if order == "random":
        generator = keyed_generator(seed, "batch", step)
        return random_sequences(corpus, batch, batch.sequences, generator)
    length = batch.sequence_length
    starts = epoch_starts(corpus, length, batch.sequences, seed=seed, step=step)
    return _sequences(corpus.training, starts, length)


def random_sequences(
    corpus: Corpus, batch: BatchConfig, sequences: int, generator: torch.Generator
) -> Tensor:
    """Sequences from independent random positions in the training tokens, (b, t + 1) int64."""
    positions = len(corpus.training) - batch.sequence_length
    starts = torch.randint(positions, (sequences,), generator=generator).tolist()
    return _sequences(corpus.training, starts, batch.sequence_length)


def iter_validation(corpus: Corpus, batch: BatchConfig, tokens: int) -> Iterator[Tensor]:
    """Yield the first ``tokens`` tokens of the held-out part in batches (b, t + 1), each once.

    The last token of a sequence is the first of the next, so that every token but the very first
    is a target exactly once. Tokens at the end that do not fill a sequence are left out.
    """
    length = batch.sequence_length
    available = min(tokens, len(corpus.validation) - 1)
    starts = range(0, max(1, available // length) * length, length)
    for first in range(0, len(starts), batch.sequences_at_once):
        chosen = starts[first : first + batch.sequences_at_once]
        yield _sequences(corpus.validation, list(chosen), length)


def epoch_starts(
    corpus: Corpus, sequence_length: int, sequences: int, *, seed: int, step: int
) -> list[int]:
    """Positions of a step's sequences, where each comes once per pass through the training tokens.

    The passes follow each other, each in a different random order. Counted through all of them,
    step s takes the sequences from s b to (s + 1) b - 1, so a batch may hold the end of one pass
    and the beginning of the next.

    If the corpus came in rows of t + 1 tokens, a sequence is a row. Otherwise sequences are t
    tokens apart, which makes every token but the first a target once per pass. Tokens at the end
    that do not fill a sequence are left out.
    """
    is_row = corpus.row_tokens == sequence_length + 1
    stride = sequence_length + 1 if is_row else sequence_length
    n = (len(corpus.training) - sequence_length - 1) // stride + 1
    counts = range(step * sequences, (step + 1) * sequences)  # of one pass or two, rarely more
    return [int(_order(n, seed, count // n)[count % n]) * stride for count in counts]


@lru_cache(maxsize=2)  # an order of 10^8 sequences takes seconds; the end of a pass needs two
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order: NDArray[np.int64] = torch.randperm(
        n, generator=keyed_generator(seed, "epoch", epoch)
    ).numpy()
    order.setflags(write=False)
    return order


def _sequences(tokens: Tokens, starts: list[int], length: int) -> Tensor:
    sequences = [tokens[start : start + length + 1] for start in starts]
    return torch.from_numpy(np.stack(sequences).astype(np.int64))
