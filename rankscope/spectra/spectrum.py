"""`Spectrum`: the singular values of one matrix, and how far they are to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rankscope.spectra.bounds import Ends, Values, Within


class Norm(NamedTuple):
    """A Frobenius norm, and a bound on its absolute error."""

    value: float
    error: float


class Sparsity(NamedTuple):
    """Gini coefficient and Hoyer's sparsity of a matrix's entries: `rankscope.spectra.entries`."""

    gini: float
    hoyer: float | None


class Cosine(NamedTuple):
    """Cosine of a change with the one before it: `rankscope.spectra.cosines`.

    Attributes
    ----------
    value, error
        The cosine, and a bound on its absolute error.
    bias
        What it would be on average if the two changes were independent: not 0, since both contain
        the rounding of the matrix between them. None if that is not known.
    """

    value: float
    error: float
    bias: float | None


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one matrix, each with an interval that contains the true one.

    Attributes
    ----------
    shape
        Rows and columns of the matrix.
    dtype
        Format that the entries were stored in.
    values
        Singular values, descending; shape ``(max_rank,)``, float64. Empty where there is no
        spectrum.
    bounds
        How far the true values may be from these: one bound for all, or an interval for each.
    lower, upper
        Ends of the intervals, shape ``(max_rank,)``, float64.
    noise_floor, noise_source
        The largest singular value that rounding alone may produce, and whether it comes from the
        ``storage`` or from the ``arithmetic``.
    route
        ``gram``, ``inverse``, ``qr-svd``, ``low-rank`` or ``kronecker``; empty if nothing was
        decomposed.
    status
        ``ok``, ``zero``, ``vector``, ``empty``, ``nonfinite``, or ``skipped:<reason>``.
    significant_bits
        Number of significant bits of the entries as found, whatever the format of the file: 8, 11,
        24 or 53; the fewest if there are several stored parts. 0 if not known.
    before
        For a change: the Frobenius norm of the matrix before it.
    cosine
        For a change: its cosine with the change before it.
    entries
        For a matrix that was in memory as a whole: how sparse its entries are.
    is_scaled
        Whether the values are those of the matrix, rather than of the matrix divided by an unknown
        factor.

    Examples
    --------
    >>> import numpy as np, rankscope as rs
    >>> found = rs.spectrum(np.vander(np.linspace(0, 1, 12)))
    >>> found.route, found.status  # its small values need more than the Gram matrix
    ('qr-svd', 'ok')
    >>> bool((found.lower <= found.values).all() and (found.values <= found.upper).all())
    True
    >>> found.error < 1e-13 * float(found.values[0])
    True
    """

    shape: tuple[int, int]
    dtype: str
    values: Values
    bounds: Within | Ends
    noise_floor: float
    noise_source: str
    route: str
    status: str = "ok"
    significant_bits: int = 0
    before: Norm | None = None
    cosine: Cosine | None = None
    entries: Sparsity | None = None
    is_scaled: bool = True

    @cached_property
    def _ends(self) -> tuple[Values, Values]:
        return self.bounds.ends(self.values)

    @property
    def lower(self) -> Values:
        """Lower ends of the intervals."""
        return self._ends[0]

    @property
    def upper(self) -> Values:
        """Upper ends of the intervals."""
        return self._ends[1]

    @property
    def max_rank(self) -> int:
        """The highest rank that the construction allows: min(m, n), or the inner dimension."""
        return len(self.values)

    @property
    def error(self) -> float:
        """Bound on the absolute error of every singular value."""
        if not self.values.size:
            return float("nan")
        return float(np.maximum(self.upper - self.values, self.values - self.lower).max())

    def times_power_of_two(self, exponent: int) -> Spectrum:
        """Spectrum of the matrix times 2**exponent; without values if float64 cannot hold them.

        Exact, except where it ends among the subnormal numbers: there the intervals are widened.
        """
        if exponent == 0:
            return self
        with np.errstate(over="ignore"):
            values = np.ldexp(self.values, exponent)
            lower, upper, floor = (
                _rounded_towards(end, np.float64(x), exponent)
                for x, end in ((self.lower, 0), (self.upper, np.inf), (self.noise_floor, np.inf))
            )
            bounds = self.bounds
            if isinstance(bounds, Within):
                bounds = bounds._replace(absolute=float(np.ldexp(bounds.absolute, exponent)))
        if not np.isfinite(values).all():
            return no_spectrum(self.shape, self.dtype, "skipped:overflow")
        # Subnormal numbers are rounded, and their intervals are wider than one bound says.
        if not all(map(np.array_equal, bounds.ends(values), (lower, upper))):
            bounds = Ends(lower, upper)
        return replace(self, values=values, bounds=bounds, noise_floor=float(floor))


def _rounded_towards(end: float, x: Values | np.float64, exponent: int) -> Values:
    scaled = np.ldexp(x, exponent)
    return np.where(np.ldexp(scaled, -exponent) == x, scaled, np.nextafter(scaled, end))


def no_spectrum(shape: tuple[int, int], dtype: str, status: str) -> Spectrum:
    """The result for a matrix without singular values: empty, not finite, or skipped."""
    return Spectrum(shape, dtype, np.empty(0), Within(0.0), float("nan"), "", "", status)
