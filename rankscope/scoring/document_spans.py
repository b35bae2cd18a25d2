"""A document cut into what a model takes at once, every token of it scored once."""

from __future__ import annotations

import numpy as np

from rankscope.errors import RankscopeError
from rankscope.scoring.likelihood import Ids, Span


def document_spans(ids: Ids, *, window: int, stride: int, prefix: int | None) -> list[Span]:
    """Cut a document into spans that together score each of its tokens exactly once.

    The first span fills the window and counts all that it can. Each further one counts the next
    ``stride`` tokens, given the latest ``window`` tokens before the last of these; so the end of a
    document, where fewer are left to count, has no less context. With ``stride == window`` the
    first token of a span has only the token before it as context, as in the rolling windows of
    the usual evaluation harness; shorter strides give every token after the first window at least
    ``window − stride + 1`` tokens of context and cost ``window / stride`` times as much.

    Parameters
    ----------
    ids
        Token ids of the document, without special tokens.
    window
        Most tokens that the model is given at once, the prefix among them.
    stride
        Tokens that each span counts after the first, 1 to ``window``.
    prefix
        Id that stands before the document; None for none, and then its first token is not scored,
        as nothing says how likely it is.

    Returns
    -------
    Spans of at most ``window + 1`` ids, in the order of the document; none where there is nothing
    to score.

    Raises
    ------
    RankscopeError
        If the stride is not within 1 and the window.
    """
    if not 1 <= stride <= window:
        raise RankscopeError(
            f"a stride of {stride} tokens does not go with a window of {window}: "
            "give one of 1 to the window, so that no token is passed over"
        )
    sequence = np.asarray(ids) if prefix is None else np.concatenate(([prefix], ids))
    counted = 1  # tokens of the sequence that are done with; the first is never scored
    spans = list[Span]()
    while counted < len(sequence):
        end = min(counted + (stride if spans else window), len(sequence))
        spans.append(Span(sequence[max(0, end - 1 - window) : end], end - counted))
        counted = end
    return spans


def first_window(ids: Ids, *, window: int) -> Span:
    """The first ``window`` tokens of a document alone, the first of them not scored.

    Other than in `document_spans` nothing stands before them, and the window holds the last token
    that is scored too.
    """
    return Span(ids[:window], max(0, min(len(ids), window) - 1))
