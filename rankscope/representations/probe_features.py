"""Two sets of features of the same tokens, compared: CKA, SVCCA and PWCCA in one row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import WrongSettingError
from rankscope.representations.canonical_correlations import (
    Basis,
    chance_correlation,
    pwcca,
    svcca,
)
from rankscope.representations.cka import LEAST_BLOCKS, BlockKernels, cka
from rankscope.representations.feature_spectrum import noise_floor
from rankscope.representations.feature_sums import FeatureSums
from rankscope.representations.jackknife import jackknife_interval
from rankscope.spectra.bounds import Values

SimilarityStatus = Literal["ok", "too-few-blocks", "unresolved", "constant", "nonfinite"]
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
        centred -= centred.mean(axis=0) if finite else 0.0  # what rounding left of the mean
        return cls(centred, blocks.astype(np.int64), noise_floor(sums, bits=bits), finite)

    @cached_property
    def basis(self) -> Basis:
        """Directions above the noise."""
        return Basis.of(self.centred, noise_floor=self.floor)

    @cached_property
    def own(self) -> Kernels:
        """HSIC with itself."""
        return _hsic(self, self)

    @property
    def varies(self) -> bool:
        """Whether the largest singular value is certainly above the noise.

        Its square is at least Σs⁴/Σs², and Σs⁴ is the biased HSIC.
        """
        energy = float(np.vdot(self.centred, self.centred))
        return self.own.biased > self.floor**2 * energy

    @cached_property
    def parts(self) -> list[NDArray[np.intp]]:
        """Which tokens are in each block."""
        return [np.flatnonzero(self.blocks == block) for block in np.unique(self.blocks)]


class Kernels(NamedTuple):
    """HSIC of two sets: unbiased, of all blocks and without each of them, and biased."""

    unbiased: float
    without: list[float]
    biased: float


@dataclass(frozen=True)
class Similarity:
    """How similar two sets of features are: a status, and the columns that have a number.

    Attributes
    ----------
    status
        ``ok``; ``too-few-blocks``, under five, or ``unresolved`` where HSIC of a set with itself is
        not positive, both without the interval of the unbiased CKA; ``constant`` where a set varies
        no more than rounding may and ``nonfinite``, without any number.
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
    >>> from rankscope.representations.probe_features import ProbeFeatures, similarity
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
    if not (first.varies and second.varies):
        return Similarity("constant", tokens, {})
    numbers = _kernel_numbers(first, second)
    if canonical:
        numbers |= _canonical_numbers(first, second)
    return Similarity(_status(first, numbers["cka_low"]), tokens, numbers)


def _status(first: ProbeFeatures, low: float) -> SimilarityStatus:
    if math.isfinite(low):
        return "ok"
    return "unresolved" if len(first.parts) > LEAST_BLOCKS else "too-few-blocks"


def _hsic(first: ProbeFeatures, second: ProbeFeatures) -> Kernels:
    kernels = BlockKernels.of(first.centred, second.centred, first.parts)
    unbiased, *without = kernels.unbiased().tolist()
    return Kernels(unbiased, without, kernels.biased)


def _kernel_numbers(first: ProbeFeatures, second: ProbeFeatures) -> dict[str, float]:
    both, one, other = _hsic(first, second), first.own, second.own
    value = cka(both.unbiased, one.unbiased, other.unbiased)
    without = [cka(*three) for three in zip(both.without, one.without, other.without, strict=True)]
    low, high = jackknife_interval(value, np.array(without), np.ones(len(without)))
    return {
        "cka": value,
        "cka_low": max(low, -1.0),
        "cka_high": min(high, 1.0),
        "cka_biased": cka(both.biased, one.biased, other.biased),
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
