"""The corpus as two arrays of token ids, and batches that are functions of the step.

Shapes: b sequences, t + 1 tokens each: inputs are all but the last, targets all but the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.corpus import Corpus, Tokens
from rankscope.training.documents import read_documents
from rankscope.training.held_out import hold_out
from rankscope.training.keyed import keyed_generator
from rankscope.training.token_files import open_token_file
from rankscope.training.token_folder import open_token_folder
from rankscope.training.tokenizer import Encoder, byte_encoder, read_encoder, trained_encoder
from rankscope.training.windows import epoch_starts, random_starts

__all__ = [
    "Corpus",
    "iter_validation",
    "load_corpus",
    "probe_batch",
    "random_windows",
    "training_batch",
]


def load_corpus(data: DataConfig, batch: BatchConfig) -> Corpus:
    """Turn the source of a configuration into token ids, or open a prepared folder of them.

    Several documents: whole ones are held out for validation, see `hold_out`. One document, or a
    file of token ids: its last part is. A prepared folder says itself what is held out.

    Raises
    ------
    RankscopeError
        If the source cannot be read, holds ids outside the vocabulary, or either part is shorter
        than one sequence.
    """
    corpus = _open_corpus(data)
    for part, tokens in (("training", corpus.training), ("validation", corpus.validation)):
        if len(tokens) < batch.sequence_length + 1:
            raise RankscopeError(
                f"leaves {len(tokens)} tokens for {part}, but one sequence needs "
                f"batch.sequence_length + 1 = {batch.sequence_length + 1}",
                path=data.source,
            )
    return corpus


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


def probe_batch(corpus: Corpus, batch: BatchConfig, sequences: int, *, seed: int) -> Tensor:
    """Sequences on which gradients and the loss around a merge are measured, (b, t + 1) int64."""
    return random_windows(corpus, batch, sequences, keyed_generator(seed, "probe"))


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


def _open_corpus(data: DataConfig) -> Corpus:
    if data.source and Path(data.source).is_dir():
        return open_token_folder(Path(data.source))
    is_ids = data.source.endswith((".bin", ".npy"))
    corpus = _load_ids(data) if is_ids else _load_text(data)
    if len(corpus.validation):
        return corpus
    cut = len(corpus.training) - round(data.validation_fraction * len(corpus.training))
    return replace(
        corpus,
        training=corpus.training[:cut],
        validation=corpus.training[cut:],
        validation_bytes=None,  # the cut may be inside a character
    )


def _load_text(data: DataConfig) -> Corpus:
    training, validation = hold_out(read_documents(data.source), data.validation_fraction)
    encoder = _encoder(data, training)
    return Corpus(
        training=_encode(encoder, training),
        validation=_encode(encoder, validation),
        vocab_size=encoder.vocab_size,
        end_of_document=encoder.end_of_document,
        tokenizer=encoder.tokenizer,
        validation_bytes=sum(len(text.encode()) for text in validation),
    )


def _encoder(data: DataConfig, training: list[str]) -> Encoder:
    if data.tokenizer == "bytes":
        return byte_encoder()
    if data.tokenizer == "bpe":
        return trained_encoder(training, data.vocab_size)
    return read_encoder(data.tokenizer)


def _encode(encoder: Encoder, documents: list[str]) -> Tokens:
    return np.concatenate(encoder.encode(documents)) if documents else np.empty(0, dtype=np.uint16)


def _load_ids(data: DataConfig) -> Corpus:
    path = Path(data.source)
    tokens = open_token_file(path, dtype="uint16" if path.suffix == ".bin" else None)
    if (largest := int(tokens.max())) >= data.vocab_size:
        raise RankscopeError(
            f"holds the token id {largest}, but data.vocab_size = {data.vocab_size}", path=path
        )
    return Corpus(tokens, tokens[:0], data.vocab_size, None, None)
