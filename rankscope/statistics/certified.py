"""How far the value of a metric can be off: arithmetic and storage together, from the table alone.

Of effective ranks the storage counts as far as it makes up values: those that may be nothing but
noise. How rounding moves the other values is random, and is part of any spread over matrices; a
bound on it, by continuity of the entropy, would be some hundred times what happens. The tail index
has the error of its arithmetic alone, likewise. All the rest is bounded whatever rounding did.

Legend: s are the singular values of a matrix, r of them; e is what the arithmetic and rounding to
the storage format may have moved each by, at most (``sigma_error`` + ``noise_floor``); F is √Σs².
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rankscope.errors import WrongSettingError
from rankscope.metrics import Values
from rankscope.statistics.quantities import quantity

BOUNDED_BY = (
    *("sigma_error", "noise_floor", "max_rank", "spectral_norm", "frobenius_norm"),
    *("participation_ratio", "per", "per_error", "per_resolved", "relative_size_error"),
    *("tail_index_error", "condition_number_status"),
)
"""Columns of the metrics table from which the errors of metrics follow."""


def values_and_errors(rows: pd.DataFrame, column: str) -> tuple[Values, Values]:
    """Values of a metric and a bound on the absolute error of each.

    A quantity that spans decades is in decimal logarithms. Where there is no value, or it is
    only a lower bound, or not finite, or nothing bounds its error, both are NaN.

    Raises
    ------
    WrongSettingError
        If no bound is known for any value of this metric.
    """
    if column not in ERRORS:
        raise WrongSettingError(
            f"the error of {column!r} is not known from the table: choose from {', '.join(ERRORS)}"
        )
    with np.errstate(all="ignore"):
        values, errors = _array(rows, column), ERRORS[column](rows)
        if quantity(column).log:
            values = np.log10(values)
        unknown = ~(np.isfinite(values) & np.isfinite(errors))
        if column == "condition_number":
            unknown |= (rows["condition_number_status"] != "ok").to_numpy()
    return np.where(unknown, np.nan, values), np.where(unknown, np.nan, errors)


def _array(rows: pd.DataFrame, column: str) -> Values:
    return rows[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _moved(rows: pd.DataFrame) -> Values:
    """What may have moved each s of every matrix: e."""
    return _array(rows, "sigma_error") + _array(rows, "noise_floor")


def _of_rank(column: str) -> Callable[[pd.DataFrame], Values]:
    """Error of an effective rank: its own bound, and the values that may be nothing but noise."""

    def error(rows: pd.DataFrame) -> Values:
        values, per, resolved = (_array(rows, name) for name in (column, "per", "per_resolved"))
        noise = np.abs(per - resolved) / per * values
        return _array(rows, "per_error") * values + noise

    return error


def _of_norm(power: float) -> Callable[[pd.DataFrame], Values]:
    """Error of s₁, F or Σs, which e moves by at most e, √r·e or r·e."""
    return lambda rows: _moved(rows) * _array(rows, "max_rank") ** power


def _of_stable_rank(rows: pd.DataFrame) -> Values:
    first, norm, moved = _array(rows, "spectral_norm"), _array(rows, "frobenius_norm"), _moved(rows)
    highest = (norm + _of_norm(0.5)(rows)) / np.where(moved < first, first - moved, np.nan)
    return highest**2 - (norm / first) ** 2


def _of_participation_ratio(rows: pd.DataFrame) -> Values:
    """Error of (Σs²)²/Σs⁴, by the largest quotient: F + √r·e over ‖s‖₄ − r^¼·e."""
    norm, ratio = _array(rows, "frobenius_norm"), _array(rows, "participation_ratio")
    fourth = norm / ratio**0.25
    least = fourth - _of_norm(0.25)(rows)
    return ((norm + _of_norm(0.5)(rows)) / np.where(least > 0, least, np.nan)) ** 4 - ratio


def _of_condition(column: str) -> Callable[[pd.DataFrame], Values]:
    """Error of the decimal logarithm of s₁/s_k, whose s_k is s₁ over the value itself."""

    def error(rows: pd.DataFrame) -> Values:
        share = _moved(rows) / _array(rows, "spectral_norm")
        lowest = 1 - share * _array(rows, column)
        return np.log10((1 + share) / np.where(lowest > 0, lowest, np.nan))

    return error


def _of_relative_size(rows: pd.DataFrame) -> Values:
    size = _array(rows, "relative_size")
    noise = size * _of_norm(0.5)(rows) / _array(rows, "frobenius_norm")
    least = size - _array(rows, "relative_size_error") - noise
    return np.log10(size / np.where(least > 0, least, np.nan))


ERRORS: dict[str, Callable[[pd.DataFrame], Values]] = {
    **{name: _of_rank(name) for name in ("per", "effective_rank", "rank_utilisation")},
    "stable_rank": _of_stable_rank,
    "participation_ratio": _of_participation_ratio,
    **{
        name: _of_condition(name)
        for name in ("condition_number", "condition_number_90", "condition_number_r")
    },
    "tail_index": lambda rows: _array(rows, "tail_index_error"),
    "relative_size": _of_relative_size,
    "spectral_norm": _of_norm(0),
    "frobenius_norm": _of_norm(0.5),
    "nuclear_norm": _of_norm(1),
}
"""Bound on the absolute error by metric, in decimal logarithms for what spans decades."""
