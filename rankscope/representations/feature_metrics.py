"""All that is measured of one layer's features, from the sums over its blocks of documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rankscope.metrics import effective_rank, effective_rank_error
from rankscope.representations.feature_spectrum import (
    FeatureSpectrum,
    feature_spectrum,
    noise_floor,
)
from rankscope.representations.feature_sums import FeatureSums, merged
from rankscope.representations.gaussian_features import gaussian_features
from rankscope.representations.jackknife import jackknife_interval
from rankscope.representations.power_law import power_law
from rankscope.representations.sensitivities import FEATURE_METRICS, Sensitive, sensitive_metrics
from rankscope.spectra.bounds import Values
from rankscope.statistics.intervals import ratio_interval

FeatureStatus = Literal["ok", "too-few-tokens", "one-block", "nonfinite", "zero", "no-convergence"]
PARTS = ("", "_low", "_high")  # of the name of a number with an interval
TOKENS_PER_DIMENSION = 4  # fewer, and the sample ends the spectrum rather than the model


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def _columns() -> tuple[str, ...]:
    names = ["status", "tokens", "dimensions", "noise_floor"]
    for suffix in ("", "_centred"):
        for metric in FEATURE_METRICS:
            names += [f"{metric}{suffix}{part}" for part in (*PARTS, "_gaussian")]
        names += [f"rankme{suffix}_{part}" for part in ("resolved", "error")]
        names += [f"alpha_req{suffix}_{part}" for part in ("from", "to", "error", "r2")]
        names.append(f"resolved_rank{suffix}")
    for name in ("mean_cosine", "mean_norm"):
        names += [f"{name}{part}" for part in PARTS]
    return tuple(names)


FEATURE_COLUMNS = _columns()


@dataclass(frozen=True)
class FeatureMetrics:
    """Numbers of one layer's features.

    Attributes
    ----------
    status
        ``ok``; ``one-block``, without intervals; ``too-few-tokens``, fewer than 4·d, so nothing of
        the spectrum; ``nonfinite`` where features hold NaN or Inf and ``zero`` where all are zero,
        without any number; ``no-convergence`` where the solver failed.
    tokens, dimensions
        n and d of the feature matrix.
    numbers
        The other columns of `FEATURE_COLUMNS` that have a value.
    """

    status: FeatureStatus
    tokens: int
    dimensions: int
    numbers: dict[str, float]

    def row(self) -> dict[str, float | int | str]:
        """One row of a table: every name of `FEATURE_COLUMNS`, NaN where there is no number."""
        row: dict[str, float | int | str] = dict.fromkeys(FEATURE_COLUMNS, math.nan)
        row |= {"status": self.status, "tokens": self.tokens, "dimensions": self.dimensions}
        return row | self.numbers


def measure_features(blocks: Sequence[FeatureSums], *, bits: int = 24) -> FeatureMetrics:
    """Ranks, decay, anisotropy and size of the features that were summed.

    Parameters
    ----------
    blocks
        Sums over each block of documents, of one layer and one place. The intervals come from how
        much the blocks differ.
    bits
        Significant bits of the format in which the features were computed: bfloat16 8, float16 11,
        float32 24, float64 53. It sets the noise floor.

    Returns
    -------
    Each of RankMe, PER, α-ReQ, stable rank and participation ratio is of the features as they are
    and, with ``_centred``, of the features minus their mean; see docs/representations.md.

    Examples
    --------
    >>> import numpy as np
    >>> from rankscope.representations.feature_metrics import measure_features
    >>> from rankscope.representations.feature_sums import FeatureSums
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(16, 64, 8)) @ np.diag([4, 1, 1, 1, 0, 0, 0, 0])
    >>> found = measure_features([FeatureSums.of(block) for block in features])
    >>> row = found.row()
    >>> found.status, found.tokens, row["resolved_rank"]
    ('ok', 1024, 4.0)
    >>> row["rankme_low"] < row["rankme"] < row["rankme_high"] < row["rankme_gaussian"]
    True
    """
    total = merged(blocks)
    blocks = [block for block in blocks if block.count]
    status = _status(total, blocks)
    if status in ("nonfinite", "zero"):
        return FeatureMetrics(status, total.count, total.dimensions, {})
    numbers = {"noise_floor": noise_floor(total, bits=bits)}
    numbers |= _flat("mean_cosine", _mean_cosine(total, blocks))
    numbers |= _flat("mean_norm", _mean_norm(total, blocks))
    if status != "too-few-tokens":
        try:
            for centred in (False, True):
                numbers |= _spectral(total, blocks, centred=centred, bits=bits)
        except np.linalg.LinAlgError:
            status = "no-convergence"
    return FeatureMetrics(status, total.count, total.dimensions, numbers)


def _status(total: FeatureSums, blocks: Sequence[FeatureSums]) -> FeatureStatus:
    if total.nonfinite or not np.isfinite(total.scatter).all():
        return "nonfinite"
    if not total.energy > 0:
        return "zero"
    if total.count < TOKENS_PER_DIMENSION * total.dimensions:
        return "too-few-tokens"
    return "ok" if len(blocks) > 1 else "one-block"


def _spectral(
    total: FeatureSums, blocks: Sequence[FeatureSums], *, centred: bool, bits: int
) -> dict[str, float]:
    suffix = "_centred" if centred else ""
    spectrum = feature_spectrum(total, centred=centred, bits=bits)
    if spectrum.resolved == 0:  # all tokens have the same features
        return {f"resolved_rank{suffix}": 0.0}
    fit = power_law(spectrum.eigenvalues, most=spectrum.resolved)
    gaussian = gaussian_features(total.count - centred, total.dimensions)
    error = effective_rank_error(spectrum.values, spectrum.lower, spectrum.upper)
    moments = [block.about(total.mean if centred else 0.0) for block in blocks]
    counts = np.array([block.count for block in blocks], np.float64)
    numbers = {
        f"resolved_rank{suffix}": float(spectrum.resolved),
        f"rankme{suffix}_error": error,
        f"rankme{suffix}_resolved": effective_rank(spectrum.values[: spectrum.resolved]),
        f"alpha_req{suffix}_from": float(fit.first),
        f"alpha_req{suffix}_to": float(fit.last),
        f"alpha_req{suffix}_error": fit.error,
        f"alpha_req{suffix}_r2": fit.r2,
    }
    for name, metric in sensitive_metrics(spectrum, fit, tokens=total.count).items():
        change = _changes(metric, spectrum, moments, counts)
        beside = error if name in ("rankme", "per") else 0.0
        most = 1.0 if name == "per" else float(total.dimensions)
        estimate = (
            _added(metric.value, change)
            if name == "alpha_req"
            else _multiplied(metric.value, change, beside=beside, most=most)
        )
        numbers |= _flat(f"{name}{suffix}", estimate) | {f"{name}{suffix}_gaussian": gaussian[name]}
    return numbers


def _flat(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _added(value: float, change: tuple[float, float]) -> Estimate:
    return Estimate(value, value + change[0], value + change[1])


def _multiplied(
    value: float, change: tuple[float, float], *, beside: float, most: float
) -> Estimate:
    """Interval of a positive number from that of its logarithm, and an error of the arithmetic."""
    low = value * math.exp(change[0]) / (1 + beside)
    return Estimate(value, low, min(value * math.exp(change[1]) * (1 + beside), max(most, value)))


def _changes(
    metric: Sensitive, spectrum: FeatureSpectrum, moments: Sequence[Values], counts: Values
) -> tuple[float, float]:
    """How far below and above its value a metric may be, from what each block adds to it."""
    gradient = (spectrum.vectors * metric.derivative) @ spectrum.vectors.T
    added = np.array([np.vdot(gradient, moment) for moment in moments])
    return ratio_interval(added * counts.sum(), counts)


def _mean_cosine(total: FeatureSums, blocks: Sequence[FeatureSums]) -> Estimate:
    """Mean cosine of pairs of different tokens, which no pair of a token with itself biases."""
    blocks = [block for block in blocks if block.nonzero]
    tokens = np.array([block.nonzero for block in blocks], np.float64)
    rest = total.directions - np.array([block.directions for block in blocks])
    value = float(_cosine(total.directions[None], np.array([total.nonzero], np.float64))[0])
    interval = jackknife_interval(value, _cosine(rest, total.nonzero - tokens), tokens)
    return Estimate(value, *np.clip(interval, -1, 1).tolist())


def _cosine(directions: Values, tokens: Values) -> Values:
    """Mean over pairs, from sums of unit vectors, (g, d), and how many were summed, (g,)."""
    pairs = np.where(tokens > 1, tokens * (tokens - 1), math.nan)
    return np.asarray(((directions**2).sum(axis=1) - tokens) / pairs, np.float64)


def _mean_norm(total: FeatureSums, blocks: Sequence[FeatureSums]) -> Estimate:
    norms = np.array([block.norms for block in blocks])
    counts = np.array([block.count for block in blocks], np.float64)
    return Estimate(total.norms / total.count, *ratio_interval(norms, counts))
