"""Negative log-likelihoods of many token sequences, in batches of similar length.

Shapes: b sequences in a batch, of at most t inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.scoring.text_model import ShareDone, Span, TextModel


def span_losses(
    model: TextModel, spans: Sequence[Span], *, progress: ShareDone | None = None
) -> NDArray[np.float64]:
    """Negative log-likelihood of the counted tokens of each span, in nats.

    Spans of similar length share a batch. Shorter ones are padded on the right, where a causal
    model does not look. The losses of tokens are summed in float64.

    Parameters
    ----------
    model
        Scores tokens.
    spans
        Each with at most ``model.context + 1`` ids; one without counted tokens costs nothing.
    progress
        Called after every batch.

    Returns
    -------
    (n,), in the order of the spans; NaN or infinite where the model's own losses are.

    Raises
    ------
    RankscopeError
        If a token id is outside the model's vocabulary.
    """
    totals = np.zeros(len(spans))
    wanted = [index for index, span in enumerate(spans) if span.counted]
    wanted.sort(key=lambda index: len(spans[index].ids), reverse=True)  # the largest batch first
    done, work = 0, sum(len(spans[index].ids) for index in wanted)
    for batch in _batches(wanted, spans, model.tokens_at_once):
        totals[batch] = _batch_losses(model, [spans[index] for index in batch])
        done += sum(len(spans[index].ids) for index in batch)
        if progress is not None:
            progress(done / work)
    return totals


def _batches(order: list[int], spans: Sequence[Span], tokens: int) -> Iterator[list[int]]:
    """Cut the order, longest first, into batches of at most ``tokens`` inputs, with padding."""
    start = 0
    while start < len(order):
        size = max(1, tokens // (len(spans[order[start]].ids) - 1))
        yield order[start : start + size]
        start += size


def _batch_losses(model: TextModel, spans: Sequence[Span]) -> NDArray[np.float64]:
    lengths = np.array([len(span.ids) for span in spans])
    ids = np.zeros((len(spans), lengths.max()), dtype=np.int64)
    for row, span in zip(ids, spans, strict=True):
        row[: len(span.ids)] = span.ids
    if (largest := int(ids.max())) >= model.vocab_size:
        raise RankscopeError(
            f"the tokenizer gives the id {largest}, but the model's vocabulary has "
            f"{model.vocab_size} tokens: pass the `tokenizer` that it was trained with"
        )
    counts = np.array([span.counted for span in spans])
    positions = np.arange(1, ids.shape[1])
    counted = (positions < lengths[:, None]) & (positions >= (lengths - counts)[:, None])
    with torch.inference_mode():
        losses = model.token_losses(
            torch.from_numpy(ids).to(model.device), torch.from_numpy(counted).to(model.device)
        )
    sequence = np.repeat(np.arange(len(spans)), counts)
    sums = np.bincount(sequence, losses.double().cpu().numpy(), minlength=len(spans))
    return sums.astype(np.float64, copy=False)  # integers, where nothing was counted
