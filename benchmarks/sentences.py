"""Minimal pairs to score: those of BLiMP, or random token ids of the same lengths.

The lengths are those of all 67,000 pairs of BLiMP with a vocabulary of 50,000 byte pairs learned
from English novels: 10.4 tokens per sentence, of which it shares the first 3.9 with its partner.
With 4,096 byte pairs learned from BLiMP itself they are 8.9 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rankscope.scoring.blimp import read_blimp
from rankscope.scoring.minimal_pairs import EncodedPairs, encode_pairs
from rankscope.scoring.text_model import TextEncoder
from rankscope.training.data.corpus_tokenizer import CorpusTokenizer, text_encoder

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
LENGTHS = (3, 5, 8, 10, 12, 18, 22, 37)  # tokens of a sentence at these percentiles
SHARED = (
    0,
    0.05,
    0.2,
    0.4,
    0.6,
    0.8,
    0.9,
    0.95,
)  # share of these that the two sentences begin with
EQUALLY_LONG = 0.88  # share of pairs; nearly all others differ by one token
PREFIX = 0


def synthetic_pairs(count: int, vocab_size: int) -> EncodedPairs:
    """Pairs of random token ids; the same for the same arguments."""
    rng = np.random.default_rng(1)
    pairs = [_synthetic_pair(rng, vocab_size) for _ in range(count)]
    return encode_pairs(TextEncoder(_ids, PREFIX, "id 0", "ids as words"), pairs)


def blimp_pairs(path: Path, count: int, vocab_size: int) -> EncodedPairs:
    """At most ``count`` pairs of BLiMP from all paradigms, as byte pairs learned from BLiMP."""
    pairs = read_blimp(path).pairs
    texts = (text for pair in pairs for text in pair)
    tokenizer = CorpusTokenizer.learned_from(texts, vocab_size)
    chosen = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).astype(int)
    return encode_pairs(
        text_encoder(tokenizer.stored, tokenizer.end_of_document), [pairs[i] for i in chosen]
    )


def _synthetic_pair(rng: np.random.Generator, vocab_size: int) -> tuple[str, str]:
    """Ids as words; after the shared beginning, the first differ and the others are random."""
    length = int(np.interp(rng.uniform(0, 100), PERCENTILES, LENGTHS) + 0.5)
    shared = int(length * np.interp(rng.uniform(0, 100), PERCENTILES, SHARED))
    other = length + int(rng.random() > EQUALLY_LONG)
    good = rng.integers(1, vocab_size, size=length)
    bad = rng.integers(1, vocab_size, size=other)
    bad[:shared] = good[:shared]
    bad[shared] = good[shared] % (vocab_size - 1) + 1
    return _text(good), _text(bad)


def _text(ids: np.ndarray) -> str:
    return " ".join(map(str, ids.tolist()))


def _ids(texts: Sequence[str]) -> list[list[int]]:
    return [[int(word) for word in text.split()] for text in texts]
