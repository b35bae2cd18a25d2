"""Singular values of a feature matrix, from the sums over its tokens, and what blurs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankscope.metrics import numerical_rank
from rankscope.representations.feature_sums import FeatureSums
from rankscope.spectra.bounds import Values, Within, agree, gram_bound
from rankscope.spectra.rounding import Rounding


@dataclass(frozen=True)
class FeatureSpectrum:
    """Singular values of the (n, d) matrix of features, its columns centred or not.

    Attributes
    ----------
    values, lower, upper
        Singular values, descending, (d,), each with an interval for the rounding of the arithmetic.
    vectors
        Right singular vectors, (d, d), one in each column.
    resolved
        How many values are certainly above the noise floor.
    """

    values: Values
    lower: Values
    upper: Values
    vectors: Values
    resolved: int

    @property
    def eigenvalues(self) -> Values:
        """Squares of the singular values: eigenvalues of the sum of squares, descending."""
        return np.square(self.values)


def feature_spectrum(sums: FeatureSums, *, centred: bool, bits: int) -> FeatureSpectrum:
    """Spectrum of the features that were summed, by the eigenvalues of their second moment.

    Parameters
    ----------
    bits
        Significant bits of the features, as for `noise_floor`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the solver did not converge, or its eigenvalues do not add up.
    """
    moment = sums.scatter if centred else sums.about(0.0)
    found, vectors = np.linalg.eigh(moment)
    size = len(found)
    if not (
        agree(float(found.sum()), float(np.trace(moment)), size)
        and agree(float(found @ found), float(np.vdot(moment, moment)), size)
    ):
        raise np.linalg.LinAlgError("the eigenvalues do not add up to the trace")
    squares = np.maximum(found[::-1], 0)
    largest = float(squares[0])
    # The trace's share is in the error of the sums already.
    bound = gram_bound(0.0, largest, long_side=0, short_side=size) + sums.error(centred=centred)
    values = np.sqrt(squares)
    lower, upper = Within.of_squares(bound, float(values[0])).ends(values)
    resolved = numerical_rank(lower, noise_floor(sums, bits=bits))
    return FeatureSpectrum(values, lower, upper, vectors[:, ::-1], resolved)


def noise_floor(sums: FeatureSums, *, bits: int) -> float:
    """Largest singular value that rounding each feature once to ``bits`` bits may produce.

    As for weights: independent errors of variance ulp²/12, here at most (x·2^(1 − bits))²/12, and
    the sum of the largest deviations of a row and of a column, with its margin. The arithmetic of a
    model rounds many times, so that this is the least noise that there can be.
    """
    columns = np.maximum(np.diagonal(sums.about(0.0)), 0) / 12
    rows = np.array([sums.longest**2 / 12])
    return Rounding(rows, columns, 2.0 ** (1 - bits), bits).floor
