"""Accuracy of a model's choices between two sentences, by paradigm and group of paradigms.

U paradigms in a group, n_u pairs in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from rankscope.scoring.blimp import Paradigm
from rankscope.statistics.intervals import NO_INTERVAL, Measure, proportion_interval

# Kind of group, and the group's name for a paradigm; an empty name means no group.
GROUPINGS: tuple[tuple[str, Callable[[Paradigm], str]], ...] = (
    ("field", lambda paradigm: paradigm.field),
    ("phenomenon", lambda paradigm: paradigm.phenomenon),
    ("uid", lambda paradigm: paradigm.uid),
)


def accuracy_measures(
    differences: NDArray[np.float64], paradigms: Sequence[Paradigm]
) -> list[Measure]:
    """Accuracy for ``all``, and of every field, phenomenon and paradigm (``uid``).

    ``accuracy``
        Of a paradigm, the share of pairs whose good sentence the model finds more probable; equal
        probabilities count 1/2, so that guessing scores 1/2 however many ties there are. Of a
        group, the unweighted mean over its paradigms: where all have the same number of pairs, as
        in BLiMP, that is the mean over pairs. NaN without an interval where a difference is NaN: a
        broken model did not choose wrongly.
    ``ties``
        Number of pairs with equal probabilities, without an interval: for ``all``, and for each
        paradigm that has any.

    The interval takes the paradigms as given and the pairs as sampled, see `effective_pairs`. To
    compare two models, compare their choices pair by pair: both saw the same pairs.

    Parameters
    ----------
    differences
        ln p(good) − ln p(bad) of each pair, (n,), paradigm after paradigm.
    paradigms
        With n pairs in all, at least one in each.

    References
    ----------
    A. Warstadt et al., *BLiMP: The Benchmark of Linguistic Minimal Pairs for English*, TACL 8,
    2020.
    """
    counts = np.array([paradigm.count for paradigm in paradigms])
    shares = _sums(np.heaviside(differences, 0.5), counts) / counts  # NaN stays NaN
    ties = _sums((differences == 0).astype(np.float64), counts)
    groups = _groups(paradigms)
    measures = [_accuracy(name, shares[members], counts[members]) for name, members in groups]
    for name, members in groups:
        if name == "all" or (name.startswith("uid:") and ties[members].any()):
            tied, pairs = float(ties[members].sum()), int(counts[members].sum())
            measures.append(Measure(name, "ties", tied, *NO_INTERVAL, pairs))
    return measures


def effective_pairs(counts: NDArray[np.integer]) -> float:
    """Number of pairs of one paradigm that are as informative as these: U² / Σ 1/n_u.

    The mean of U shares p_u has the variance Σ p_u (1 − p_u) / n_u / U². With the mean p for every
    p_u that is p (1 − p) / n, n as above. For paradigms of one size this n is the number of pairs,
    and the variance is overestimated: p (1 − p) is concave, so paradigms of different
    difficulty vary less than paradigms of average difficulty, and ties vary less than choices.

    Parameters
    ----------
    counts
        n_u, (U,), positive.
    """
    return float(len(counts) ** 2 / (1 / counts).sum())


def _sums(values: NDArray[np.float64], counts: NDArray[np.integer]) -> NDArray[np.float64]:
    paradigm = np.repeat(np.arange(len(counts)), counts)
    sums = np.bincount(paradigm, values, minlength=len(counts))
    return sums.astype(np.float64, copy=False)  # it is float64 already, unknown to mypy


def _groups(paradigms: Sequence[Paradigm]) -> list[tuple[str, list[int]]]:
    groups = [("all", list(range(len(paradigms))))]
    for kind, name_of in GROUPINGS:
        members: dict[str, list[int]] = {}
        for index, paradigm in enumerate(paradigms):
            members.setdefault(name_of(paradigm), []).append(index)
        groups += [(f"{kind}:{name}", members[name]) for name in sorted(members) if name]
    return groups


def _accuracy(group: str, shares: NDArray[np.float64], counts: NDArray[np.integer]) -> Measure:
    value = float(shares.mean())
    interval = proportion_interval(value, effective_pairs(counts))
    return Measure(group, "accuracy", value, *interval, int(counts.sum()))
