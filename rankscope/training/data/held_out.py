"""Which documents are held out for validation: whole ones, chosen by a hash of their content.

The choice depends on neither a seed nor an order, and copies of a document are on the same side.
Where there is only one document, its last part is held out.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.document_sources import Content, Source
from rankscope.training.data.prepare_settings import PrepareSettings, Report
from rankscope.training.data.token_files import AT_ONCE, Tokens, iter_id_bytes


@dataclass(frozen=True)
class Split:
    """Which side each document of a corpus is on."""

    below: int  # documents with a digest below it are held out
    cut: float = 0.0  # share of each document to hold out, where all are copies of one

    def parts(self, document: Content) -> Iterator[tuple[bool, Content]]:
        """Yield what is held out (True) and what is not: the whole, or the last part of it."""
        if not self.cut:
            yield document_digest(document) < self.below, document
            return
        cut = cut_of(len(document), self.cut)
        yield False, document[:cut]
        yield True, document[cut:]


@dataclass(frozen=True)
class Survey:
    """What one reading of all documents shows."""

    documents: int
    size: int  # characters or ids
    split: Split
    is_text: bool


def survey(
    documents: Iterable[tuple[Source, Content]],
    settings: PrepareSettings,
    *,
    vocab_size: int | None,
    report: Report,
) -> Survey:
    """Read every document, and choose which are held out.

    Parameters
    ----------
    documents
        Each with the source that it comes from.
    settings
        Must fit what the documents are, texts or ids.
    vocab_size
        Ids must be below it.
    report
        Called now and then.

    Raises
    ------
    WrongSettingError
        If some documents are texts and others ids, or the settings do not fit what they are.
    RankscopeError
        If there are no documents, or ids outside the vocabulary.
    """
    digests, sizes, is_text = array("Q"), array("Q"), False
    for source, document in documents:
        if not digests:
            is_text = isinstance(document, str)
            settings.check_for_texts() if is_text else settings.check_for_ids()
        if isinstance(document, str) != is_text:
            raise WrongSettingError(
                "cannot be prepared together with the sources before it: one is text, the other "
                "token ids",
                path=source.name,
            )
        if not isinstance(document, str):
            _check_ids(document, source, vocab_size or 0)
        digests.append(document_digest(document))
        sizes.append(len(document))
        if len(digests) % 1000 == 0:
            report(0.0, f"read {len(digests):,} documents")
    if not digests:
        raise RankscopeError("no document in the sources: they hold neither text nor token ids")
    split = choose_split(
        np.frombuffer(digests, dtype=np.uint64),
        np.frombuffer(sizes, dtype=np.uint64),
        fraction=settings.validation_fraction,
    )
    return Survey(len(digests), sum(sizes), split, is_text)


def hold_out(documents: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split documents into those to train on and those to validate on, as `choose_split` does."""
    split = choose_split(
        np.array([document_digest(text) for text in documents], dtype=np.uint64),
        np.array([len(text) for text in documents], dtype=np.uint64),
        fraction=fraction,
    )
    sides: dict[bool, list[str]] = {False: [], True: []}
    for document in documents:
        for held_out, part in split.parts(document):
            if isinstance(part, str) and part:
                sides[held_out].append(part)
    return sides[False], sides[True]


def choose_split(
    digests: NDArray[np.uint64], sizes: NDArray[np.uint64], *, fraction: float
) -> Split:
    """Choose which documents are held out.

    Documents are taken in the order of their digests until ``fraction`` of the total size is
    reached; the last distinct one is always left to train on. So the part that is held out is
    never smaller than requested, and larger by less than one document and its copies.

    Parameters
    ----------
    digests, sizes
        One per document, (n,) with n >= 1; copies have the same digest.
    fraction
        In (0, 1).
    """
    order = np.argsort(digests)
    ordered, ordered_sizes = digests[order], sizes[order]
    before = np.cumsum(ordered_sizes) - ordered_sizes
    # Copies are taken together, so what counts is the size before the first of them.
    before = before[np.searchsorted(ordered, ordered)]
    enough = ordered[before >= fraction * float(sizes.sum())]
    below = int(enough[0] if len(enough) else ordered[-1])
    is_only_one = below == int(ordered[0])
    return Split(below, cut=fraction if is_only_one else 0.0)


def cut_of(size: int, fraction: float) -> int:
    """Where the held-out last part of a document of that size begins."""
    return size - round(fraction * size)


def document_digest(document: Content) -> int:
    """First 64 bits of the BLAKE2b hash of a text's UTF-8 bytes, or of ids as uint32."""
    if isinstance(document, str):
        digest = hashlib.blake2b(document.encode(errors="surrogatepass"))
    else:
        digest = hashlib.blake2b()
        for stored in iter_id_bytes(document):
            digest.update(stored)
    return int.from_bytes(digest.digest()[:8], "big")


def _check_ids(ids: Tokens, source: Source, vocab_size: int) -> None:
    slices = (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
    if (largest := max(int(part.max()) for part in slices)) >= vocab_size:
        raise RankscopeError(
            f"holds the token id {largest}, but the vocabulary has {vocab_size}: check "
            "`vocab_size`, `tokenizer` and, for a file without a header, `dtype`",
            path=source.name,
        )
