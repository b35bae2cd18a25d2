"""Two sets of features of the same tokens, compared: CKA, SVCCA and PWCCA in one row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import WrongSettingError
from rankscope.representations.canonical_correlations import (
    Basis,
    chance_correlation,
    pwcca,
    svcca,
)
from rankscope.representations.cka import KernelSums, cka
from rankscope.representations.feature_spectrum import noise_floor
from rankscope.representations.feature_sums import FeatureSums
from rankscope.representations.jackknife import jackknife_interval
from rankscope.spectra.bounds import Values

SimilarityStatus = Literal["ok", "one-block", "too-few-tokens", "constant", "nonfinite"]
SIMILARITY_COLUMNS = (
    *("status", "tokens", "cka", "cka_low", "cka_high", "cka_biased"),
    *("svcca", "svcca_chance", "svcca_kept_first", "svcca_kept_second"),
    *("pwcca", "pwcca_chance", "pwcca_kept_first", "pwcca_kept_second"),
)


@dataclass(frozen=True)
class ProbeFeatures:
    """Features of the probe tokens at one place of one model, made ready to be compared.

    Attributes
    ----------
    centred
        Features minus their mean, (n, d), float64; empty where a feature is not finite.
    blocks
        The block of each token, (n,).
    floor
        What rounding may contribute to their singular values.
    """

    centred: Values
    blocks: NDArray[np.int64]
    floor: float
    finite: bool

    @classmethod
    def of(
        cls, features: NDArray[Any], blocks: NDArray[np.integer], *, bits: int = 24
    ) -> ProbeFeatures:
        """Prepare features, (n, d), whose tokens belong to these blocks, (n,).

        Parameters
        ----------
        bits
            Significant bits of the features: bfloat16 8, float16 11, float32 24, float64 53.
        """
        if features.ndim != 2 or blocks.shape != features.shape[:1]:
            raise WrongSettingError(
                f"features have shape {features.shape} and blocks {blocks.shape}; "
                "expected (n, d) and one block number per token"
            )
        sums = FeatureSums.of(features)
        finite = sums.nonfinite == 0
        centred = np.asarray(features, np.float64) - sums.mean if finite else np.empty((0, 0))
        return cls(centred, blocks.astype(np.int64), noise_floor(sums, bits=bits), finite)

    @cached_property
    def basis(self) -> Basis:
        """Directions above the noise."""
        return Basis.of(self.centred, noise_floor=self.floor)

    @cached_property
    def own(self) -> tuple[Values, float]:
        """Unbiased HSIC with itself, of all tokens and then without each block; and the biased one.

        The unbiased one is 0 where it is not resolved.
        """
        return _hsic(self, self)

    def parts(self) -> Iterator[NDArray[np.bool_]]:
        """Which tokens are in each block."""
        for block in np.unique(self.blocks):
            yield self.blocks == block


@dataclass(frozen=True)
class Similarity:
    """How similar two sets of features are: a status, and the columns that have a number.

    Attributes
    ----------
    status
        ``ok``; ``one-block``, without an interval; ``too-few-tokens``, under four, ``constant``
        where a set does not vary, and ``nonfinite``, all without any number.
    """

    status: SimilarityStatus
    tokens: int
    numbers: dict[str, float]

    def row(self) -> dict[str, float | int | str]:
        """One row of a table: every name of `SIMILARITY_COLUMNS`, NaN where there is no number."""
        row: dict[str, float | int | str] = dict.fromkeys(SIMILARITY_COLUMNS, math.nan)
        return row | {"status": self.status, "tokens": self.tokens} | self.numbers


def similarity(
    first: ProbeFeatures, second: ProbeFeatures, *, canonical: bool = True
) -> Similarity:
    """Compare features of the same tokens, which may have different numbers of dimensions.

    Parameters
    ----------
    canonical
        Whether SVCCA and PWCCA are wanted too: they decompose the features.

    Examples
    --------
    A rotation changes nothing; other features of the same tokens are another matter:

    >>> import numpy as np
    >>> from rankscope.representations.probe import ProbeFeatures, similarity
    >>> rng = np.random.default_rng(0)
    >>> blocks = np.arange(320) // 20
    >>> x, y = rng.normal(size=(2, 320, 8))
    >>> rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    >>> one, turned, other = (ProbeFeatures.of(z, blocks) for z in (x, x @ rotation, y))
    >>> round(similarity(one, turned).row()["cka"], 6)
    1.0
    >>> row = similarity(one, other).row()
    >>> row["cka_low"] < 0 < row["cka_high"], row["cka_biased"] > 0
    (True, True)
    """
    tokens = len(first.blocks)
    if not np.array_equal(first.blocks, second.blocks):
        raise WrongSettingError(
            f"features of {tokens} and {len(second.blocks)} tokens, or of other blocks: only "
            "features of the same tokens in the same order can be compared"
        )
    if not (first.finite and second.finite):
        return Similarity("nonfinite", tokens, {})
    if tokens < 4:
        return Similarity("too-few-tokens", tokens, {})
    if not (first.own[0][0] > 0 and second.own[0][0] > 0):
        return Similarity("constant", tokens, {})
    numbers = _kernel_numbers(first, second)
    if canonical:
        numbers |= _canonical_numbers(first, second)
    status: SimilarityStatus = "ok" if len(np.unique(first.blocks)) > 1 else "one-block"
    return Similarity(status, tokens, numbers)


def _hsic(first: ProbeFeatures, second: ProbeFeatures) -> tuple[Values, float]:
    total = KernelSums.of(first.centred, second.centred)
    found = [total.unbiased_hsic()]
    if first is second and not total.is_resolved(found[0]):
        return np.zeros(1), 0.0
    for part in first.parts():
        rest = total - KernelSums.of(first.centred[part], second.centred[part])
        found.append(rest.unbiased_hsic())
    return np.array(found), total.biased_hsic()


def _kernel_numbers(first: ProbeFeatures, second: ProbeFeatures) -> dict[str, float]:
    unbiased, biased = _hsic(first, second)
    triples = zip(*(x.tolist() for x in (unbiased, first.own[0], second.own[0])), strict=True)
    value, *without = (cka(*triple) for triple in triples)
    sizes = np.unique(first.blocks, return_counts=True)[1].astype(np.float64)
    low, high = jackknife_interval(value, np.array(without), sizes)
    return {
        "cka": value,
        "cka_low": max(low, -1.0),
        "cka_high": min(high, 1.0),
        "cka_biased": cka(biased, first.own[1], second.own[1]),
    }


def _canonical_numbers(first: ProbeFeatures, second: ProbeFeatures) -> dict[str, float]:
    one, other, tokens = first.basis, second.basis, len(first.blocks)
    leading = one.leading, other.leading
    kept = len(one.values), len(other.values)
    return {
        "svcca": svcca(one, other),
        "svcca_chance": chance_correlation(tokens, *leading),
        "svcca_kept_first": float(leading[0]),
        "svcca_kept_second": float(leading[1]),
        "pwcca": pwcca(one, other),
        "pwcca_chance": chance_correlation(tokens, *kept),
        "pwcca_kept_first": float(kept[0]),
        "pwcca_kept_second": float(kept[1]),
    }
