"""Token ids to train on and to validate on, and what is known about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Corpus:
    """Token ids to train on and others to validate on; both may be memory-mapped."""

    training: Tokens  # (n,)
    validation: Tokens  # (m,)
    vocab_size: int
    end_of_document: int | None  # None where the ids were made elsewhere
    tokenizer: str | None  # as tokenizer.json
    row_tokens: int | None = None  # where the ids came in rows, all of this length
    documents: NDArray[np.uint64] | None = None  # where each begins, training first, and the end
    validation_bytes: int | None = None  # of the held-out text as UTF-8
    recorded_digest: str | None = None  # of a prepared folder, so that it need not be read

    def digest(self) -> str:
        """Hash of all token ids and of where the held-out part begins."""
        if self.recorded_digest is not None:
            return self.recorded_digest
        return tokens_digest(self.training, self.validation, vocab_size=self.vocab_size)


def tokens_digest(training: Tokens, validation: Tokens, *, vocab_size: int) -> str:
    """Hash of two parts of token ids; the same for every unsigned integer type they are held in."""
    digest = hashlib.blake2b(f"{len(training)} {vocab_size}".encode(), digest_size=16)
    for tokens in (training, validation):
        for start in range(0, len(tokens), 1 << 22):
            digest.update(tokens[start : start + (1 << 22)].astype("<u4").tobytes())
    return digest.hexdigest()
