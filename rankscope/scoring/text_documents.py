"""What a model makes of each document of a text set: from text to token ids to likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.scoring.perplexity import DocumentScores
from rankscope.scoring.text_model import TextEncoder, TextModel

if TYPE_CHECKING:
    from rankscope.scoring.likelihood import Progress, Span

CHARACTERS_AT_ONCE = 1 << 22  # to encode; each takes some 40 bytes meanwhile
DOCUMENTS_AT_ONCE = 512  # likewise: enough of them for every core
TOKENS_AT_ONCE = 1 << 20  # to score: their spans exist together, sorted by length

Item = TypeVar("Item")


@dataclass(frozen=True)
class Document:
    """A text that is scored by itself, and where it comes from.

    Attributes
    ----------
    text
        All of it.
    source
        The corpus that it is of, where its text set has several.
    domain
        The part of the source that it is of.
    """

    text: str
    source: str | None = None
    domain: str | None = None


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents as one tokenizer has them, for any number of models.

    Attributes
    ----------
    ids
        Token ids of each document, at least one.
    bytes, words
        (n,): bytes of its UTF-8 text, and words between white space.
    sources, domains
        As in `Document`.
    left_out
        How many documents gave no token; they are not among the n.
    """

    ids: tuple[NDArray[np.uint32], ...]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]
    sources: tuple[str | None, ...]
    domains: tuple[str | None, ...]
    left_out: int


def encode_documents(encoder: TextEncoder, documents: Iterable[Document]) -> EncodedDocuments:
    """Encode documents; of their texts only some megabytes are held at once.

    Parameters
    ----------
    encoder
        The tokenizer.
    documents
        At least one that gives a token.

    Raises
    ------
    RankscopeError
        If none does.
    """
    ids = list[NDArray[np.uint32]]()
    sizes = list[tuple[int, int]]()
    origins = list[tuple[str | None, str | None]]()
    left_out = 0
    for group in _iter_groups(documents, _encoding_size, most=CHARACTERS_AT_ONCE):
        encoded = encoder.encode([document.text for document in group])
        for document, found in zip(group, encoded, strict=True):
            if not found:
                left_out += 1
                continue
            ids.append(np.array(found, dtype=np.uint32))
            sizes.append((len(document.text.encode()), len(document.text.split())))
            origins.append((document.source, document.domain))
    if not ids:
        raise RankscopeError(f"none of {left_out} documents gives a token: give other text")
    text_bytes, words = np.array(sizes, dtype=np.int64).T.copy()
    sources, domains = zip(*origins, strict=True)
    return EncodedDocuments(tuple(ids), text_bytes, words, sources, domains, left_out)


def score_documents(
    model: TextModel,
    documents: EncodedDocuments,
    *,
    window: int | None = None,
    stride: int | None = None,
    document_perplexity: bool = True,
    progress: Progress | None = None,
) -> DocumentScores:
    """Score each document by itself.

    Parameters
    ----------
    model
        Scores tokens; its own tokenizer encoded the documents.
    window
        Tokens that the model is given at once; by default as many as it takes.
    stride
        Tokens that a window counts after the first one; by default all, see `document_spans`.
    document_perplexity
        Whether to score the first window by itself too, as ``mean_document_perplexity`` needs it.
        Where a prefix stands before the text this is more work, else only for long documents.
    progress
        Called after every batch.

    Returns
    -------
    NaN or infinite losses where the model's own are.

    Raises
    ------
    RankscopeError
        If the model takes no such window, the stride does not go with it, or a token id is outside
        the model's vocabulary.
    """
    from rankscope.scoring.document_spans import document_spans, first_window

    window = _window(model, window)
    stride, prefix = window if stride is None else stride, model.encoder.prefix
    lengths = np.array([len(ids) for ids in documents.ids], dtype=np.int64)
    firsts = np.minimum(lengths, window)
    is_own = (lengths > window) | (prefix is not None)  # else one pass serves for both
    own = np.flatnonzero(is_own & document_perplexity)
    share = lengths.sum() / (lengths.sum() + firsts[own].sum())  # of the work, without overlaps
    whole = _document_losses(
        model,
        documents.ids,
        partial(document_spans, window=window, stride=stride, prefix=prefix),
        _part(progress, 0.0, share),
    )
    first = whole.copy()
    first[own] = _document_losses(
        model,
        [documents.ids[number] for number in own],
        lambda ids: [first_window(ids, window=window)],
        _part(progress, share, 1.0),
    )
    return DocumentScores(
        losses=whole,
        tokens=lengths - int(prefix is None),
        bytes=documents.bytes,
        words=documents.words,
        first_losses=first if document_perplexity else None,
        first_tokens=firsts - 1 if document_perplexity else None,
        sources=documents.sources,
        domains=documents.domains,
        is_prefixed=prefix is not None,
    )


def _window(model: TextModel, wanted: int | None) -> int:
    if wanted is not None and wanted > model.window:
        raise RankscopeError(
            f"a window of {wanted} tokens is more than the {model.window} that the model takes: "
            "give that many or fewer"
        )
    return model.window if wanted is None else wanted


def _document_losses(
    model: TextModel,
    documents: Sequence[NDArray[np.uint32]],
    spans_of: Callable[[NDArray[np.uint32]], list[Span]],
    progress: Progress | None,
) -> NDArray[np.float64]:
    """Sum the losses of each document's spans; those of some documents at a time share batches."""
    from rankscope.scoring.likelihood import span_losses

    losses = np.zeros(len(documents))
    done, work = 0, sum(map(len, documents))
    for group in _iter_groups(enumerate(documents), lambda one: len(one[1]), most=TOKENS_AT_ONCE):
        cut = [(number, span) for number, ids in group for span in spans_of(ids)]
        size = sum(len(ids) for _, ids in group)
        part = _part(progress, done / work, (done + size) / work)
        found = span_losses(model, [span for _, span in cut], progress=part)
        # Adds up where a document has several spans, as `losses[numbers] += …` would not.
        np.add.at(losses, np.array([number for number, _ in cut], dtype=int), found)
        done += size
    return losses


def _encoding_size(document: Document) -> int:
    return max(len(document.text), CHARACTERS_AT_ONCE // DOCUMENTS_AT_ONCE)


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Progress of a part of the work, as that of the whole."""
    if progress is None:
        return None
    return lambda share: progress(start + share * (end - start))


def _iter_groups(
    items: Iterable[Item], size_of: Callable[[Item], int], *, most: int
) -> Iterator[list[Item]]:
    """Yield the items some at a time, until together they have the size."""
    group, size = list[Item](), 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= most:
            yield group
            group, size = [], 0
    if group:
        yield group
