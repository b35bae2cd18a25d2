"""Metrics of a feature spectrum, and how each answers to a change of the second moment.

All are functions of the eigenvalues λ of Σxxᵀ and do not depend on their scale. Such a function
changes by Σ (∂f/∂λᵢ)·vᵢᵀDvᵢ if a small D is added to the sum, also where eigenvalues lie close.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from rankscope.metrics import effective_rank, participation_ratio, stable_rank
from rankscope.representations.feature_spectrum import FeatureSpectrum
from rankscope.representations.power_law import PowerLaw, slope_weights
from rankscope.spectra.bounds import Values

FeatureMetric = Literal["rankme", "per", "alpha_req", "stable_rank", "participation_ratio"]
FEATURE_METRICS: tuple[FeatureMetric, ...] = get_args(FeatureMetric)


class Sensitive(NamedTuple):
    """The value of a metric, and its derivative by each eigenvalue, (d,).

    Of the exponent α it is the derivative of the value; of the ranks that of the logarithm.
    """

    value: float
    derivative: Values


def sensitive_metrics(
    spectrum: FeatureSpectrum, fit: PowerLaw, *, tokens: int
) -> dict[FeatureMetric, Sensitive]:
    """All metrics of a spectrum that is not zero.

    Parameters
    ----------
    fit
        The power law of its eigenvalues.
    tokens
        The n of the (n, d) feature matrix.
    """
    s = spectrum.values
    rank = effective_rank(s)
    by_rank = _of_effective_rank(spectrum)
    share = rank / min(tokens, len(s))
    return {
        "rankme": Sensitive(rank, by_rank),
        "per": Sensitive(share, by_rank),
        "alpha_req": Sensitive(fit.alpha, _of_alpha(spectrum, fit)),
        "stable_rank": Sensitive(stable_rank(s), _of_stable_rank(spectrum)),
        "participation_ratio": Sensitive(participation_ratio(s), _of_participation(spectrum)),
    }


def _of_effective_rank(spectrum: FeatureSpectrum) -> Values:
    # Values that the arithmetic does not resolve are left out: the derivative is infinite at zero.
    shares = spectrum.values / spectrum.values.sum()
    known = (spectrum.lower > 0) & (shares > 0)
    s, p = spectrum.values[known], shares[known]
    entropy = -float((p * np.log(p)).sum())
    derivative = np.zeros(len(spectrum.values))
    derivative[known] = -(np.log(p) + entropy) * p / (2 * s**2)
    return derivative


def _of_stable_rank(spectrum: FeatureSpectrum) -> Values:
    derivative = np.full(len(spectrum.values), 1 / spectrum.eigenvalues.sum())
    derivative[0] -= 1 / spectrum.eigenvalues[0]
    return derivative


def _of_participation(spectrum: FeatureSpectrum) -> Values:
    energies = spectrum.eigenvalues
    return np.asarray(2 / energies.sum() - 2 * energies / (energies @ energies), np.float64)


def _of_alpha(spectrum: FeatureSpectrum, fit: PowerLaw) -> Values:
    derivative = np.zeros(len(spectrum.values))
    if np.isfinite(fit.alpha):
        fitted = slice(fit.first - 1, fit.last)
        derivative[fitted] = -slope_weights(fit.first, fit.last) / spectrum.eigenvalues[fitted]
    return derivative
