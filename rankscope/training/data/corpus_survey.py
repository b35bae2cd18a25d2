"""A first look at all documents: what they are, how many, and which of them are held out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rankscope.errors import RankscopeError
from rankscope.training.data.corpus import Tokens
from rankscope.training.data.held_out import Document, Split, document_digest, held_out_below
from rankscope.training.data.prepare_settings import PrepareSettings, Report
from rankscope.training.data.text_sources import Source

_AT_ONCE = 1 << 22  # ids


@dataclass(frozen=True)
class Survey:
    """What is known of documents that were read once."""

    documents: int
    size: int  # characters or ids
    split: Split
    is_text: bool


def survey(
    documents: Iterable[tuple[Source, Document]],
    settings: PrepareSettings,
    *,
    vocab_size: int | None,
    report: Report,
) -> Survey:
    """Read every document, and choose what is held out.

    Parameters
    ----------
    documents
        Each with where it comes from.
    settings
        They must fit what the documents are.
    vocab_size
        One more than the largest id there may be, where the documents are ids.
    report
        Called now and then.

    Raises
    ------
    RankscopeError
        If there are no documents, texts as well as ids, ids outside the vocabulary, or settings
        that do not fit.
    """
    digests, sizes, is_text = array("Q"), array("Q"), False
    for source, document in documents:
        if not digests:
            is_text = isinstance(document, str)
            settings.check_for_texts() if is_text else settings.check_for_ids()
        if isinstance(document, str) != is_text:
            raise RankscopeError(
                "cannot be prepared together with what came before it: one is text, the other ids",
                path=source.name,
            )
        if not isinstance(document, str):
            _check_ids(document, source, vocab_size or 0)
        digests.append(document_digest(document))
        sizes.append(len(document))
        if len(digests) % 1000 == 0:
            report(0.0, f"read {len(digests):,} documents")
    if not digests:
        raise RankscopeError("no document in the sources: they hold no text and no token ids")
    split = _split(digests, sizes, settings.validation_fraction)
    return Survey(len(digests), sum(sizes), split, is_text)


def _split(digests: array[int], sizes: array[int], fraction: float) -> Split:
    all_digests = np.frombuffer(digests, dtype=np.uint64)
    below = held_out_below(all_digests, np.frombuffer(sizes, dtype=np.uint64), fraction=fraction)
    is_alone = below == int(all_digests.min())
    return Split(below, cut=fraction if is_alone else 0.0)


def _check_ids(ids: Tokens, source: Source, vocab_size: int) -> None:
    slices = (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
    if (largest := max(int(part.max()) for part in slices)) >= vocab_size:
        raise RankscopeError(
            f"holds the token id {largest}, but the vocabulary has {vocab_size}: "
            "see --vocab-size, --tokenizer and, for a file without a header, --dtype",
            path=source.name,
        )
