"""How much more probable a model finds the acceptable sentence of a pair than the other one.

p = probability of all tokens of a sentence, given the prefix token alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, printable
from rankscope.scoring.likelihood import span_losses
from rankscope.scoring.text_model import ShareDone, Span, TextEncoder, TextModel


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs of sentences as token ids: made once, scored by every checkpoint.

    The good sentence of pair i is sequence 2i, the bad one 2i + 1.

    Attributes
    ----------
    ids
        Ids of all sequences, one after another, each with its prefix.
    lengths
        Number of ids of each sequence, (2n,).
    counted
        Number of ids at its end that distinguish it from its partner, (2n,).
    longest
        The sentence with the most ids, to be named if it is too long.
    """

    ids: NDArray[np.uint32]
    lengths: NDArray[np.int64]
    counted: NDArray[np.int64]
    longest: str

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.lengths) // 2


def encode_pairs(
    encoder: TextEncoder, pairs: Sequence[tuple[str, str]], *, leading_space: bool = False
) -> EncodedPairs:
    """Token ids of sentence pairs, and which of them must be scored.

    The tokens that both sentences of a pair begin with are equally probable in both, so the
    difference of ln p needs only what follows.

    Parameters
    ----------
    encoder
        Without a prefix, the first token of a sentence has no probability and is not scored.
        Sentences that differ only there tie.
    pairs
        The good sentence first.
    leading_space
        Put a space before every sentence, as evaluation harnesses do that score it as the
        continuation of an empty text.
    """
    before = " " if leading_space else ""
    sentences = [before + sentence for pair in pairs for sentence in pair]
    sequences = encoder.encode(sentences)
    if encoder.prefix is not None:
        sequences = [[encoder.prefix, *ids] for ids in sequences]
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    shared = [
        _shared_beginning(good, bad)
        for good, bad in zip(sequences[::2], sequences[1::2], strict=True)
    ]
    known = np.maximum(np.repeat(np.array(shared, dtype=np.int64), 2), 1)
    return EncodedPairs(
        ids=np.fromiter(chain.from_iterable(sequences), dtype=np.uint32, count=lengths.sum()),
        lengths=lengths,
        counted=np.maximum(lengths - known, 0),
        longest=sentences[lengths.argmax()] if sentences else "",
    )


def pair_differences(
    model: TextModel, encoded: EncodedPairs, *, progress: ShareDone | None = None
) -> NDArray[np.float64]:
    """Difference ln p(good) − ln p(bad) of each pair, in nats.

    Log-probabilities are summed over tokens and not divided by their number, as BLiMP's authors
    do: the model chooses the good sentence where the difference is positive.

    Parameters
    ----------
    model
        The model whose encoder made the pairs, or another checkpoint of it.
    encoded
        n pairs.
    progress
        Called after every batch.

    Returns
    -------
    (n,). Exactly 0 where both have the same tokens, at no cost. NaN where the model's
    losses are NaN, or infinite for both.

    Raises
    ------
    RankscopeError
        If a sentence is longer than the model's context, or a token id outside its vocabulary.

    References
    ----------
    A. Warstadt et al., *BLiMP: The Benchmark of Linguistic Minimal Pairs for English*, TACL 8,
    2020.
    """
    inputs = int(encoded.lengths.max(initial=1)) - 1
    if inputs > model.context:
        raise RankscopeError(
            f"the sentence {printable(encoded.longest, limit=60)!r} has {inputs} input tokens, but "
            f"the model takes {model.context} at once: leave its pair out"
        )
    losses = span_losses(model, _spans(encoded), progress=progress).reshape(-1, 2)
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN, as the docstring says
        return losses[:, 1] - losses[:, 0]


def _shared_beginning(first: Sequence[int], second: Sequence[int]) -> int:
    indices = range(min(len(first), len(second)))
    return next((i for i in indices if first[i] != second[i]), len(indices))


def _spans(encoded: EncodedPairs) -> list[Span]:
    ends = encoded.lengths.cumsum()
    bounds = zip(ends - encoded.lengths, ends, encoded.counted.tolist(), strict=True)
    return [Span(encoded.ids[start:end], counted) for start, end, counted in bounds]
