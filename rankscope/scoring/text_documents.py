"""Likelihoods of documents: from text to token ids to the losses of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.groups import iter_groups
from rankscope.scoring.document_spans import Cut, document_spans, first_span
from rankscope.scoring.perplexity import DocumentScores
from rankscope.scoring.text_model import ShareDone, Span, TextEncoder, TextModel

CHARACTERS_AT_ONCE = 1 << 22  # to encode; each takes about 40 bytes meanwhile
DOCUMENTS_AT_ONCE = 512  # likewise: enough of them for every core
TOKENS_AT_ONCE = 1 << 20  # to score: their spans exist together, sorted by length
WHOLE = Cut()


@dataclass(frozen=True)
class TextDocument:
    """A text that is scored on its own, and where it comes from.

    Attributes
    ----------
    source
        The corpus that it belongs to, if its text set has several.
    domain
        The part of the source that it belongs to.
    """

    text: str
    source: str | None = None
    domain: str | None = None


@dataclass(frozen=True)
class EncodedDocuments:
    """Documents as token ids of one tokenizer, for any number of models.

    Attributes
    ----------
    ids
        Token ids of each document, at least one.
    bytes, words
        (n,): bytes of its UTF-8 text, and whitespace-separated words.
    sources, domains
        As in `TextDocument`.
    left_out
        Number of documents without a token; they are not among the n.
    """

    ids: tuple[NDArray[np.uint32], ...]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]
    sources: tuple[str | None, ...]
    domains: tuple[str | None, ...]
    left_out: int


def encode_documents(encoder: TextEncoder, documents: Iterable[TextDocument]) -> EncodedDocuments:
    """Encode documents, a few megabytes of text at a time.

    Raises
    ------
    RankscopeError
        If none has a token.
    """
    ids = list[NDArray[np.uint32]]()
    sizes = list[tuple[int, int]]()
    origins = list[tuple[str | None, str | None]]()
    left_out = 0
    for group in iter_groups(documents, _encoding_size, size=CHARACTERS_AT_ONCE):
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
    cut: Cut = WHOLE,
    *,
    progress: ShareDone | None = None,
) -> DocumentScores:
    """Score each document by itself.

    Parameters
    ----------
    model
        Scores tokens; its own tokenizer encoded the documents.
    cut
        How documents are cut. Scoring the first span by itself, for ``mean_document_perplexity``,
        is extra work if there is a prefix, else only for long documents.
    progress
        Called after every batch.

    Returns
    -------
    NaN or infinite losses where the model's are.

    Raises
    ------
    RankscopeError
        If the cut does not suit the model, or a token id is outside the model's vocabulary.
    """
    context, prefix = _context(model, cut.context), model.encoder.prefix
    stride = context if cut.stride is None else cut.stride
    lengths = np.array([len(ids) for ids in documents.ids], dtype=np.int64)
    firsts = np.minimum(lengths, context)
    is_own = (lengths > context) | (prefix is not None)  # else one pass serves for both
    own = np.flatnonzero(is_own & cut.document_perplexity)
    share = lengths.sum() / (lengths.sum() + firsts[own].sum())  # of the work, without overlaps
    whole = _document_losses(
        model,
        documents.ids,
        partial(document_spans, context=context, stride=stride, prefix=prefix),
        _part(progress, 0.0, share),
    )
    first = whole.copy()
    first[own] = _document_losses(
        model,
        [documents.ids[number] for number in own],
        lambda ids: [first_span(ids, context=context)],
        _part(progress, share, 1.0),
    )
    return DocumentScores(
        losses=whole,
        tokens=lengths - int(prefix is None),
        bytes=documents.bytes,
        words=documents.words,
        first_losses=first if cut.document_perplexity else None,
        first_tokens=firsts - 1 if cut.document_perplexity else None,
        sources=documents.sources,
        domains=documents.domains,
        is_prefixed=prefix is not None,
    )


def _context(model: TextModel, wanted: int | None) -> int:
    if wanted is not None and wanted > model.context:
        raise RankscopeError(
            f"`window` is {wanted} tokens, but the model takes at most {model.context} at once"
        )
    return model.context if wanted is None else wanted


def _document_losses(
    model: TextModel,
    documents: Sequence[NDArray[np.uint32]],
    spans_of: Callable[[NDArray[np.uint32]], list[Span]],
    progress: ShareDone | None,
) -> NDArray[np.float64]:
    """Sum the losses of each document's spans; several documents at a time share batches."""
    from rankscope.scoring.likelihood import span_losses

    losses = np.zeros(len(documents))
    done, work = 0, sum(map(len, documents))
    numbered = enumerate(documents)
    for group in iter_groups(numbered, lambda one: len(one[1]), size=TOKENS_AT_ONCE):
        cut = [(number, span) for number, ids in group for span in spans_of(ids)]
        size = sum(len(ids) for _, ids in group)
        part = _part(progress, done / work, (done + size) / work)
        found = span_losses(model, [span for _, span in cut], progress=part)
        # Adds up several spans of a document, unlike `losses[numbers] += …`.
        np.add.at(losses, np.array([number for number, _ in cut], dtype=int), found)
        done += size
    return losses


def _encoding_size(document: TextDocument) -> int:
    return max(len(document.text), CHARACTERS_AT_ONCE // DOCUMENTS_AT_ONCE)


def _part(progress: ShareDone | None, start: float, end: float) -> ShareDone | None:
    """Progress of the whole, from that of a part."""
    if progress is None:
        return None
    return lambda share: progress(start + share * (end - start))
