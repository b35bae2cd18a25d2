"""Perplexities of text sets, of their sources and of their domains, from the losses of documents.

Intervals are over sampled documents: tokens of one document are correlated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.statistics.intervals import (
    Measure,
    mean_interval,
    mean_of_means_interval,
    ratio_interval,
)


@dataclass(frozen=True)
class DocumentScores:
    """Scores of a model on n documents.

    Attributes
    ----------
    losses
        (n,): total −ln p of the scored tokens of a document, in nats.
    tokens
        (n,): number of scored tokens: all, or without a prefix all but the first.
    bytes, words
        (n,): bytes of the whole document's UTF-8 text, and its whitespace-separated words.
    first_losses, first_tokens
        (n,): losses and tokens of the first window alone, without a prefix; None where they were
        not requested.
    sources, domains
        The corpus that a document belongs to, and the part of it; None where it names none.
    is_prefixed
        Whether each document had a prefix, so that all its tokens are scored.
    """

    losses: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]
    first_losses: NDArray[np.float64] | None
    first_tokens: NDArray[np.int64] | None
    sources: tuple[str | None, ...]
    domains: tuple[str | None, ...]
    is_prefixed: bool


def perplexity_measures(scores: DocumentScores) -> list[Measure]:
    """Loss and perplexities of all documents, of each source and of each domain.

    ==============================  =============================================================
    ``loss``                        Σ losses / Σ tokens: nats per token
    ``perplexity``                  exp(loss) [1]_
    ``bits_per_byte``               Σ losses / (ln 2 · Σ bytes) [2]_: the one to compare models
                                    with different tokenizers by
    ``byte_perplexity``             exp(Σ losses / Σ bytes) [3]_
    ``word_perplexity``             exp(Σ losses / Σ words) [3]_, of words between white space
    ``mean_document_perplexity``    mean over documents of exp(mean loss of the tokens 2…T of the
                                    first window, given no prefix) [4]_: one odd document can
                                    outweigh all others, so never compare it with ``perplexity``
    ``macro_perplexity``            of a source the mean of its domains' perplexities, of all the
                                    mean of its sources' [1]_; a source without domains counts
                                    with its perplexity
    ``macro_bits_per_byte``         likewise
    ==============================  =============================================================

    Parameters
    ----------
    scores
        Documents without a scored token do not count.

    Returns
    -------
    Groups are ``all``, then each ``source:S`` and its ``domain:S/D``, sorted; n = documents. A
    document that names no source is only in ``all``, one that names no domain only in ``all`` and
    its source; macro means leave both out where other documents name them.

    Rows are left out where the number does not exist: per byte and word where documents have no
    prefix, since the loss of the first token is then missing; words where the text has none; the
    mean over documents where no first window was scored or has two tokens; macro means over a
    single part.

    A loss too large for its exponential gives inf; a NaN loss gives NaN and no interval.

    References
    ----------
    .. [1] I. Magnusson et al., *Paloma: A Benchmark for Evaluating Language Model Fit*, 2023.
    .. [2] L. Gao et al., *The Pile: An 800GB Dataset of Diverse Text for Language Modeling*, 2020,
       section 3.1.
    .. [3] The Language Model Evaluation Harness of EleutherAI, metrics of rolling log-likelihoods.
    .. [4] Weiss et al. 2025, by the metric ``perplexity`` of the library evaluate.
    """
    # Overflow and undefined values are inf and NaN in the table, without a warning.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return list(_iter_measures(_all_documents(scores), scores))


@dataclass(frozen=True)
class _Group:
    """Documents that are summarised together, and the named groups among them."""

    name: str
    members: NDArray[np.int64]
    parts: tuple[_Group, ...] = ()


def _all_documents(scores: DocumentScores) -> _Group:
    sources = []
    scored = np.flatnonzero(scores.tokens)
    for source, members in _by_name(scored, scores.sources):
        domains = tuple(
            _Group(f"domain:{source}/{domain}", some)
            for domain, some in _by_name(members, scores.domains)
        )
        sources.append(_Group(f"source:{source}", members, domains))
    return _Group("all", scored, tuple(sources))


def _by_name(
    members: NDArray[np.int64], names: tuple[str | None, ...]
) -> list[tuple[str, NDArray[np.int64]]]:
    found: dict[str, list[int]] = {}
    for member in members:
        if (name := names[member]) is not None:
            found.setdefault(name, []).append(member)
    return [(name, np.array(found[name])) for name in sorted(found)]


def _iter_measures(group: _Group, scores: DocumentScores) -> Iterator[Measure]:
    if len(group.members):
        yield from _iter_own(group, scores)
    if _leaves(group) > 1:
        yield _macro(_perplexity, group, scores)
        if scores.is_prefixed:
            yield _macro(_bits_per_byte, group, scores)
    for part in group.parts:
        yield from _iter_measures(part, scores)


def _iter_own(group: _Group, scores: DocumentScores) -> Iterator[Measure]:
    yield _ratio(group, "loss", scores.losses, scores.tokens)
    yield _perplexity(group, scores)
    if scores.is_prefixed:
        yield _bits_per_byte(group, scores)
        yield _exponential(_ratio(group, "byte_perplexity", scores.losses, scores.bytes))
        if scores.words[group.members].any():
            yield _exponential(_ratio(group, "word_perplexity", scores.losses, scores.words))
    if (mean := _mean_document_perplexity(group, scores)) is not None:
        yield mean


def _perplexity(group: _Group, scores: DocumentScores) -> Measure:
    return _exponential(_ratio(group, "perplexity", scores.losses, scores.tokens))


def _bits_per_byte(group: _Group, scores: DocumentScores) -> Measure:
    return _ratio(group, "bits_per_byte", scores.losses, math.log(2) * scores.bytes)


def _mean_document_perplexity(group: _Group, scores: DocumentScores) -> Measure | None:
    if scores.first_losses is None or scores.first_tokens is None:
        return None
    members = group.members[scores.first_tokens[group.members] > 0]
    if not len(members):
        return None
    each = np.exp(scores.first_losses[members] / scores.first_tokens[members])
    low, high = mean_interval(each)
    name = "mean_document_perplexity"
    return Measure(group.name, name, float(each.mean()), low, high, len(members))


def _ratio(
    group: _Group,
    metric: str,
    losses: NDArray[np.float64],
    units: NDArray[np.integer[Any]] | NDArray[np.floating[Any]],
) -> Measure:
    some, of = losses[group.members], units[group.members].astype(np.float64)
    low, high = ratio_interval(some, of)
    return Measure(group.name, metric, float(some.sum() / of.sum()), low, high, len(some))


def _exponential(measure: Measure) -> Measure:
    value, low, high = np.exp([measure.value, measure.ci_low, measure.ci_high]).tolist()
    return replace(measure, value=value, ci_low=low, ci_high=high)


def _macro(
    pooled: Callable[[_Group, DocumentScores], Measure], group: _Group, scores: DocumentScores
) -> Measure:
    """Mean over the parts of a group, each of which may itself be such a mean."""
    if not group.parts:
        own = pooled(group, scores)
        return replace(own, metric=f"macro_{own.metric}")
    parts = [_macro(pooled, part, scores) for part in group.parts]
    mean = sum(part.value for part in parts) / len(parts)
    low, high = mean_of_means_interval([(part.ci_low, part.ci_high) for part in parts], mean)
    return Measure(group.name, parts[0].metric, mean, low, high, sum(part.n for part in parts))


def _leaves(group: _Group) -> int:
    return sum(map(_leaves, group.parts)) or 1
