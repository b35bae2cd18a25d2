"""The token ids that a run trains and validates on, loaded from the source of a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.data.corpus_tokenizer import CorpusTokenizer
from rankscope.training.data.document_files import PYTHON_DOCUMENTATION, read_documents
from rankscope.training.data.document_sources import TOKEN_FORMATS
from rankscope.training.data.held_out import cut_of, hold_out
from rankscope.training.data.token_files import Tokens, open_token_file, tokens_digest
from rankscope.training.data.token_folder import open_token_folder


@dataclass(frozen=True)
class Corpus:
    """Token ids to train on and others to validate on; both may be memory-mapped."""

    training: Tokens  # (n,)
    validation: Tokens  # (m,)
    vocab_size: int
    end_of_document: int | None  # None if the source held ids
    tokenizer: str | None  # as tokenizer.json
    row_tokens: int | None = None  # if the ids came in rows that are all of this length
    documents: NDArray[np.uint64] | None = None  # where each begins, training first, and the end
    validation_bytes: int | None = None  # of the held-out text as UTF-8
    recorded_digest: str | None = None  # of a prepared folder, which then need not be read

    def digest(self) -> str:
        """Hash of all token ids and of where the held-out part begins."""
        if self.recorded_digest is not None:
            return self.recorded_digest
        return tokens_digest(self.training, self.validation, vocab_size=self.vocab_size)


def load_corpus(data: DataConfig, batch: BatchConfig) -> Corpus:
    """Turn the source of a configuration into token ids, or open a prepared folder of them.

    Whole documents are held out for validation or, where there is only one, its last part, see
    `hold_out`; a file of token ids is one document. A folder that `prepare_tokens` made of the same
    source holds the same corpus.

    Raises
    ------
    WrongSettingError
        If there is no such source.
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
    path = Path(data.source)
    if data.source != PYTHON_DOCUMENTATION and not path.exists():
        raise WrongSettingError(
            "does not exist: set `data.source` to a text, token ids or a folder of "
            "`rankscope data prepare`",
            path=path,
        )
    if data.source and path.is_dir():
        return _of_folder(path)
    return _of_ids(path, data) if data.source.endswith(TOKEN_FORMATS) else _of_text(data)


def _of_folder(path: Path) -> Corpus:
    folder = open_token_folder(path)
    return Corpus(
        training=folder.training,
        validation=folder.validation,
        vocab_size=folder.sidecar.vocab_size,
        end_of_document=folder.sidecar.end_of_document,
        tokenizer=folder.tokenizer,
        row_tokens=folder.sidecar.row_tokens,
        documents=folder.documents,
        validation_bytes=folder.sidecar.validation.bytes,
        recorded_digest=folder.sidecar.digest,
    )


def _of_text(data: DataConfig) -> Corpus:
    training, validation = hold_out(read_documents(data.source), data.validation_fraction)
    tokenizer = _tokenizer(data, training)
    return Corpus(
        training=_encode(tokenizer, training),
        validation=_encode(tokenizer, validation),
        vocab_size=tokenizer.vocab_size,
        end_of_document=tokenizer.end_of_document,
        tokenizer=tokenizer.stored,
        validation_bytes=sum(len(text.encode()) for text in validation),
    )


def _tokenizer(data: DataConfig, training: list[str]) -> CorpusTokenizer:
    if data.tokenizer == "bytes":
        return CorpusTokenizer.of_bytes()
    if data.tokenizer == "bpe":
        return CorpusTokenizer.learned_from(training, data.vocab_size)
    return CorpusTokenizer.read(data.tokenizer)


def _encode(tokenizer: CorpusTokenizer, documents: list[str]) -> Tokens:
    ids = tokenizer.encode(documents)
    return np.concatenate(ids) if ids else np.empty(0, dtype=np.uint16)


def _of_ids(path: Path, data: DataConfig) -> Corpus:
    tokens = open_token_file(path, dtype="uint16" if path.suffix == ".bin" else None)
    if (largest := int(tokens.max())) >= data.vocab_size:
        raise RankscopeError(
            f"holds the token id {largest}, but data.vocab_size = {data.vocab_size}", path=path
        )
    cut = cut_of(len(tokens), data.validation_fraction)
    return Corpus(tokens[:cut], tokens[cut:], data.vocab_size, None, None)
