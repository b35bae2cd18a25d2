"""The corpus of a configuration: a text as token ids, token files, or a prepared folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from rankscope.errors import RankscopeError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.data.corpus import Corpus, Tokens
from rankscope.training.data.document_files import read_documents
from rankscope.training.data.held_out import hold_out
from rankscope.training.data.token_files import open_token_file
from rankscope.training.data.token_folder import open_token_folder
from rankscope.training.data.tokenizer import Encoder, byte_encoder, read_encoder, trained_encoder


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
