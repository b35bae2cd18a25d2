"""The text that a run of this package's trainer held out of its training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError
from rankscope.training.config import Config
from rankscope.training.config_file import load_config
from rankscope.training.data.corpus import Corpus, load_corpus
from rankscope.training.data.corpus_tokenizer import CorpusTokenizer
from rankscope.training.data.document_files import PYTHON_DOCUMENTATION, read_documents
from rankscope.training.data.held_out import hold_out
from rankscope.training.data.token_files import Tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, ENVIRONMENT, TOKENIZER = "config.toml", "environment.json", "tokenizer.json"
TOKEN_FILES = (".bin", ".npy")


def held_out_documents(run: Run) -> list[str]:
    """Documents that a run held out for validation: whole ones, unless there was only one.

    The documents of a run that was trained on text come from that text. Those of a run that was
    trained on a prepared folder are decoded from its ids: a byte-level tokenizer restores the text
    exactly, others may have changed it before they encoded it.

    Parameters
    ----------
    run
        Its ``config.toml`` says where the data are; a relative path starts from the working folder,
        as in training.

    Raises
    ------
    RankscopeError
        If it is not a run of the trainer, if its data are missing or differ from those that it was
        trained on, or if they are ids without a known tokenizer.
    """
    config = _config(run)
    source = config.data.source
    if source != PYTHON_DOCUMENTATION and not Path(source).exists():
        raise RankscopeError(
            f"does not exist, but {run.path / CONFIG} names it as the run's data: start in the "
            "folder that the training was started in, or score other text with `text`",
            path=source,
        )
    if not (run.path / TOKENIZER).is_file():
        raise RankscopeError(
            f"holds token ids, and the run has no {TOKENIZER} to read the held-out text with: "
            "score other text with `text`",
            path=source,
        )
    if not Path(source).is_dir() and not source.endswith(TOKEN_FILES):
        _, texts = hold_out(read_documents(source), config.data.validation_fraction)
        _refuse_other_text(run, texts)
        return texts
    return _decoded(run, config)


def held_out_digest(run: Run) -> str:
    """Digest that changes with a run's held-out text.

    It is computed from what the run recorded of its token ids and from its tokenizer, or from the
    text where the run recorded nothing.

    Raises
    ------
    RankscopeError
        If it is not a run of the trainer; where the text has to be read, as `held_out_documents`.
    """
    _config(run)
    digest = hashlib.blake2b(digest_size=16)
    recorded = _recorded_digest(run)
    if recorded is not None:
        digest.update(recorded.encode())
        digest.update((run.path / TOKENIZER).read_bytes())
    else:
        for text in held_out_documents(run):
            digest.update(hashlib.blake2b(text.encode()).digest())
    return digest.hexdigest()


def held_out_folder(run: Run) -> str | None:
    """Folder of the text that `held_out_digest` reads; None where it reads none."""
    if _recorded_digest(run) is not None:
        return None
    source = Path(_config(run).data.source)
    return str(source if source.is_dir() else source.parent)


def _recorded_digest(run: Run) -> str | None:
    """What a run recorded of its token ids, if it has a tokenizer to read them with."""
    recorded = read_json(run.path / ENVIRONMENT).get("data_blake2b")
    return recorded if isinstance(recorded, str) and (run.path / TOKENIZER).is_file() else None


def _config(run: Run) -> Config:
    if not (run.path / CONFIG).is_file():
        raise RankscopeError(
            f"has no {CONFIG}, so it is not a run of rankscope train and what it held out is "
            "unknown: score other text with `text`",
            path=run.path,
        )
    return load_config(run.path / CONFIG)


def _decoded(run: Run, config: Config) -> list[str]:
    """Documents from the ids that the trainer held out."""
    from tokenizers import Tokenizer

    corpus = load_corpus(config.data, config.batch)
    _refuse_other_data(run, "data_blake2b", corpus.digest())
    tokenizer = Tokenizer.from_file(str(run.path / TOKENIZER))
    end = corpus.end_of_document
    return [_text(tokenizer, ids, end) for ids in _documents(corpus)]


def _documents(corpus: Corpus) -> list[Tokens]:
    """Held-out token ids of each document."""
    if corpus.documents is None:
        return [corpus.validation]
    starts = corpus.documents.astype(np.int64) - len(corpus.training)
    return np.split(corpus.validation, starts[(starts > 0) & (starts < len(corpus.validation))])


def _text(tokenizer: Tokenizer, ids: Tokens, end_of_document: int | None) -> str:
    if len(ids) and ids[-1] == end_of_document:
        ids = ids[:-1]
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def _refuse_other_text(run: Run, texts: list[str]) -> None:
    """Compare the number of held-out tokens: a digest would need all text to be encoded."""
    tokenizer = CorpusTokenizer.read(run.path / TOKENIZER)
    _refuse_other_data(run, "validation_tokens", sum(map(len, tokenizer.encode(texts))))


def _refuse_other_data(run: Run, key: str, found: object) -> None:
    recorded = read_json(run.path / ENVIRONMENT).get(key, found)
    if recorded != found:
        raise RankscopeError(
            f"the data are not those that it was trained on ({key} was {recorded} and is {found}), "
            "so they may contain text that it has seen: restore them, or score other text with "
            "`text`",
            path=run.path,
        )
