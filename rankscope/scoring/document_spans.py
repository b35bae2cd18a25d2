"""A document cut into spans that a model takes at once, every token scored once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankscope.errors import WrongSettingError
from rankscope.scoring.text_model import Ids, Span


@dataclass(frozen=True)
class Cut:
    """How documents are cut for a model that takes a limited number of tokens at once.

    Attributes
    ----------
    context
        Input tokens at once, the parameter ``window`` of `rankscope.evaluate`; None for as many as
        the model takes.
    stride
        Tokens from one span to the next; None for the context, so that spans do not overlap.
    document_perplexity
        Whether the first span of each document is also scored by itself, without a prefix.
    """

    context: int | None = None
    stride: int | None = None
    document_perplexity: bool = True

    def __post_init__(self) -> None:
        for name, tokens in (("window", self.context), ("stride", self.stride)):
            if tokens is not None and tokens < 1:
                raise WrongSettingError(f"`{name}` is {tokens} tokens: give 1 or more")
        if self.context is not None and self.stride is not None:
            require_fit(self.stride, self.context)


def require_fit(stride: int, context: int) -> None:
    """Raise `WrongSettingError` if a stride skips tokens."""
    if not 1 <= stride <= context:
        raise WrongSettingError(
            f"`stride` is {stride} tokens and `window` is {context}, so some tokens would never "
            f"be scored: use a stride of 1 to {context}"
        )


def document_spans(ids: Ids, *, context: int, stride: int, prefix: int | None) -> list[Span]:
    """Cut a document into spans that together score each of its tokens exactly once.

    The first span fills the context and counts all that it can. Each later one counts the next
    ``stride`` tokens, given the latest ``context`` tokens before the last of these; so the end of a
    document, where fewer remain to count, has no less context. With ``stride == context`` the first
    token of a span has only the token before it as context, as in the rolling windows of the usual
    evaluation harness. Shorter strides give every token after the first span at least ``context −
    stride + 1`` tokens of context and cost ``context / stride`` times as much.

    Parameters
    ----------
    ids
        Token ids of the document, without special tokens.
    context
        Most tokens that the model is given at once, including the prefix.
    stride
        Tokens that each span after the first counts, 1 to ``context``.
    prefix
        Id of the token before the document; None for none: the first token then has no probability
        and is not scored.

    Returns
    -------
    Spans of at most ``context + 1`` ids, in the order of the document; none where there is nothing
    to score.

    Raises
    ------
    WrongSettingError
        If the stride is not between 1 and the context.
    """
    require_fit(stride, context)
    sequence = np.asarray(ids) if prefix is None else np.concatenate(([prefix], ids))
    counted = 1  # tokens of the sequence that are done; the first is never scored
    spans = list[Span]()
    while counted < len(sequence):
        end = min(counted + (stride if spans else context), len(sequence))
        spans.append(Span(sequence[max(0, end - 1 - context) : end], end - counted))
        counted = end
    return spans


def first_span(ids: Ids, *, context: int) -> Span:
    """The first ``context`` tokens of a document alone, the first of them not scored.

    Unlike in `document_spans`, nothing precedes them, and the last scored token is among them.
    """
    return Span(ids[:context], max(0, min(len(ids), context) - 1))
