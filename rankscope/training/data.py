"""The corpus as two arrays of token ids, and batches that are functions of the step.

Shapes: b sequences, t + 1 tokens each: inputs are all but the last, targets all but the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.documents import hold_out, read_documents
from rankscope.training.keyed import keyed_generator
from rankscope.training.tokenizer import (
    BYTES,
    END_OF_DOCUMENT,
    byte_tokenizer,
    encode_bpe,
    encode_bytes,
    train_bpe,
)

Tokens = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Corpus:
    """Token ids to train on and others to validate on."""

    training: Tokens  # (n,)
    validation: Tokens  # (m,)
    vocab_size: int
    end_of_document: int | None  # None where the ids were made elsewhere
    tokenizer: str | None  # as tokenizer.json

    def digest(self) -> str:
        """Hash of all token ids and of where the held-out part begins."""
        digest = hashlib.blake2b(f"{len(self.training)} {self.vocab_size}".encode(), digest_size=16)
        for tokens in (self.training, self.validation):
            for start in range(0, len(tokens), 1 << 24):
                digest.update(tokens[start : start + (1 << 24)].astype("<u4").tobytes())
        return digest.hexdigest()


def load_corpus(data: DataConfig, batch: BatchConfig) -> Corpus:
    """Read the source of a configuration and turn it into token ids.

    Several documents: whole ones are held out for validation, see `hold_out`. One document, or a
    file of token ids: its last part is.

    Raises
    ------
    RankscopeError
        If the source cannot be read, holds ids outside the vocabulary, or either part is shorter
        than one sequence.
    """
    is_ids = data.source.endswith((".bin", ".npy"))
    corpus = _load_ids(data) if is_ids else _load_text(data)
    if not len(corpus.validation):
        cut = len(corpus.training) - round(data.validation_fraction * len(corpus.training))
        corpus = Corpus(
            corpus.training[:cut],
            corpus.training[cut:],
            corpus.vocab_size,
            corpus.end_of_document,
            corpus.tokenizer,
        )
    for part, tokens in (("training", corpus.training), ("validation", corpus.validation)):
        if len(tokens) < batch.sequence_length + 1:
            raise RankscopeError(
                f"leaves {len(tokens)} tokens for {part}, but one sequence needs "
                f"batch.sequence_length + 1 = {batch.sequence_length + 1}",
                path=data.source,
            )
    return corpus


def training_batch(corpus: Corpus, batch: BatchConfig, *, seed: int, step: int) -> Tensor:
    """Sequences of one step, (b, t + 1) int64: windows at random places, the same on every call."""
    return random_windows(corpus, batch, batch.sequences, keyed_generator(seed, "batch", step))


def probe_batch(corpus: Corpus, batch: BatchConfig, sequences: int, *, seed: int) -> Tensor:
    """Sequences on which gradients and the loss around a merge are measured, (b, t + 1) int64."""
    return random_windows(corpus, batch, sequences, keyed_generator(seed, "probe"))


def random_windows(
    corpus: Corpus, batch: BatchConfig, sequences: int, generator: torch.Generator
) -> Tensor:
    """Windows of the training tokens that begin at independent random places."""
    length = batch.sequence_length + 1
    places = len(corpus.training) - length + 1
    starts = torch.randint(places, (sequences,), generator=generator).tolist()
    return _stack([corpus.training[start : start + length] for start in starts])


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
        yield _stack([corpus.validation[start : start + length + 1] for start in chosen])


def _stack(windows: list[Tokens]) -> Tensor:
    return torch.from_numpy(np.stack(windows).astype(np.int64))


def _load_text(data: DataConfig) -> Corpus:
    training, validation = hold_out(read_documents(data.source), data.validation_fraction)
    if data.tokenizer == "bytes":
        return Corpus(
            training=encode_bytes(training),
            validation=encode_bytes(validation),
            vocab_size=BYTES + 1,
            end_of_document=BYTES,
            tokenizer=byte_tokenizer().to_str(),
        )
    tokenizer = train_bpe(training, data.vocab_size)
    return Corpus(
        training=encode_bpe(tokenizer, training),
        validation=encode_bpe(tokenizer, validation),
        vocab_size=tokenizer.get_vocab_size(),
        end_of_document=tokenizer.token_to_id(END_OF_DOCUMENT),
        tokenizer=tokenizer.to_str(),
    )


def _load_ids(data: DataConfig) -> Corpus:
    path = Path(data.source)
    try:
        if path.suffix == ".npy":
            tokens: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            tokens = np.memmap(path, dtype="<u2", mode="r")
    except (OSError, ValueError) as error:
        raise RankscopeError(f"cannot be read as token ids: {error}", path=path) from None
    if tokens.ndim != 1 or tokens.dtype.kind != "u" or not len(tokens):
        raise RankscopeError(
            f"holds {tokens.dtype} of shape {tokens.shape}, but token ids are a "
            "one-dimensional array of unsigned integers",
            path=path,
        )
    if (largest := int(tokens.max())) >= data.vocab_size:
        raise RankscopeError(
            f"holds the token id {largest}, but data.vocab_size = {data.vocab_size}", path=path
        )
    return Corpus(tokens, tokens[:0], data.vocab_size, None, None)
