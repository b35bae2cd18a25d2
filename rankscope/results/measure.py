"""Every metric of a matrix, from its spectrum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rankscope import metrics, shape_metrics
from rankscope.results.columns import METRICS
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.spectrum import Norm, Spectrum

FULL_RANK = ("weight", "base", "factor", "gradient")  # neither a change nor a product
# They scale with the matrix: unknown if the matrix is known only up to its scale.
NORMS = ("noise_floor", "spectral_norm", "frobenius_norm", "nuclear_norm", "sigma_error")
SCALED = (*NORMS, "signal_to_noise", "relative_size", "relative_size_error")
Number = float | int | str | None
Row = dict[str, Any]


def measure(spectrum: Spectrum, *, whole: bool = True) -> dict[str, Number]:
    """Metrics by column; None where a metric is not defined.

    A zero matrix has norms but no rank and no condition number; likewise a matrix with no value
    above the error of the arithmetic. A matrix without a spectrum has only its status. One known
    only up to its scale has ranks and ratios but no norms.

    Parameters
    ----------
    spectrum
        The spectrum of the matrix.
    whole
        Whether it is a weight or a gradient of full rank. In changes and products, values below the
        noise floor do not belong to the matrix; instead of a condition number, they have s[0] over
        the floor, their signal-to-noise ratio.
    """
    row = _measured(spectrum, whole=whole)
    return row if spectrum.is_scaled else row | dict.fromkeys(SCALED)


def _measured(spectrum: Spectrum, *, whole: bool) -> dict[str, Number]:
    row: dict[str, Number] = dict.fromkeys(METRICS)
    row["noise_source"], row["route"] = spectrum.noise_source, spectrum.route
    row["condition_number_status"] = ""
    if spectrum.status not in ("ok", "vector", "zero"):
        return row
    s = spectrum.values
    row |= {
        "per_gaussian": metrics.gaussian_per(spectrum.shape),
        "noise_floor": spectrum.noise_floor,
        "significant_bits": spectrum.significant_bits or None,
        "spectral_norm": metrics.spectral_norm(s),
        "frobenius_norm": _in_range(metrics.frobenius_norm(s)),
        "nuclear_norm": _in_range(metrics.nuclear_norm(s)),
        "max_rank": spectrum.max_rank,
        "sigma_error": spectrum.error,
        **_relative_size(spectrum),
        **_cosine(spectrum),
        **_entries(spectrum),
    }
    if spectrum.status == "zero":
        return row
    rank = metrics.numerical_rank(spectrum.lower, spectrum.noise_floor)
    if not whole and spectrum.noise_floor > 0:
        row["signal_to_noise"] = _in_range(float(s[0]) / spectrum.noise_floor)
    if not has_ranks(spectrum):
        return row | {"numerical_rank": rank}
    conditions = _conditions(spectrum, rank)
    if not whole:
        conditions = {"condition_number_r": conditions["condition_number_r"]}
    return row | _ranks(spectrum, rank) | _shape(spectrum) | conditions


def has_ranks(spectrum: Spectrum) -> bool:
    """Whether a matrix has ranks: it is neither zero nor possibly mere rounding of arithmetic."""
    if spectrum.status not in ("ok", "vector"):
        return False
    is_above = bool((spectrum.lower > spectrum.noise_floor).any())
    return is_above or spectrum.noise_source != "arithmetic"


def _in_range(number: float) -> float | None:
    return number if math.isfinite(number) else None


def frobenius_norm(spectrum: Spectrum) -> Norm:
    """Frobenius norm of a matrix, and a bound on its absolute error, from its singular values."""
    low, norm, high = (
        metrics.frobenius_norm(s) for s in (spectrum.lower, spectrum.values, spectrum.upper)
    )
    return Norm(norm, max(high - norm, norm - low) + _rounding(spectrum) * norm)


def _rounding(spectrum: Spectrum) -> float:
    """A generous bound on the relative error of the root of the sum of all squared values."""
    return 4 * (len(spectrum.values) + 4) * UNIT_ROUNDOFF


def _relative_size(spectrum: Spectrum) -> dict[str, Number]:
    """Frobenius norm of a change over that of the earlier matrix, and a bound on its error."""
    before = spectrum.before
    if before is None or not before.error < before.value < math.inf:
        return {}
    low, size, high = (
        metrics.frobenius_norm(s) for s in (spectrum.lower, spectrum.values, spectrum.upper)
    )
    ratio = size / before.value
    most = high / (before.value - before.error) * (1 + _rounding(spectrum))
    least = low / (before.value + before.error) * (1 - _rounding(spectrum))
    if not math.isfinite(most):
        return {}
    return {"relative_size": ratio, "relative_size_error": max(most - ratio, ratio - least)}


def _cosine(spectrum: Spectrum) -> dict[str, Number]:
    cosine = spectrum.cosine
    if cosine is None:
        return {}
    return {
        "update_cosine": cosine.value,
        "update_cosine_error": cosine.error,
        "update_cosine_bias": cosine.bias,
    }


def _entries(spectrum: Spectrum) -> dict[str, Number]:
    entries = spectrum.entries
    return {} if entries is None else {"entry_gini": entries.gini, "entry_hoyer": entries.hoyer}


def _ranks(spectrum: Spectrum, rank: int) -> dict[str, Number]:
    s, floor, q = spectrum.values, spectrum.noise_floor, min(spectrum.shape)
    effective = metrics.effective_rank(s)
    # Where all values are above the floor, both effective ranks are of the same values.
    resolved = (
        effective if rank == s.size else metrics.resolved_effective_rank(s, spectrum.lower, floor)
    )
    return {
        "effective_rank": effective,
        "per": effective / q,
        "per_error": metrics.effective_rank_error(s, spectrum.lower, spectrum.upper),
        "per_resolved": resolved / q if rank else None,
        "rank_utilisation": effective / spectrum.max_rank,
        "stable_rank": metrics.stable_rank(s),
        "participation_ratio": metrics.participation_ratio(s),
        "numerical_rank": rank,
        "noise_share": metrics.noise_share(s, floor, rank),
    }


def _shape(spectrum: Spectrum) -> dict[str, Number]:
    """Entropy, energy, tail and outliers; the tail only where the rank is not capped."""
    s, shape = spectrum.values, spectrum.shape
    most_energy, nearly_all = shape_metrics.energy_ranks(s, (0.9, 0.99))
    row: dict[str, Number] = {
        "svd_entropy": _known(shape_metrics.svd_entropy(s)),
        "energy_rank_90": int(most_energy),
        "energy_rank_99": int(nearly_all),
    }
    if spectrum.max_rank < min(shape):
        return row
    tail = shape_metrics.tail_index(
        spectrum.lower, s, spectrum.upper, noise_floor=spectrum.noise_floor
    )
    outliers = shape_metrics.outliers(s, shape)
    row |= {
        "tail_index": _known(tail.value),
        "tail_index_error": _in_range(max(tail.high - tail.value, tail.value - tail.low)),
        "tail_index_gaussian": _known(shape_metrics.gaussian_tail_index(shape)),
    }
    # A bulk below the floor consists of rounding.
    has_bulk = shape_metrics.median(s) > spectrum.noise_floor
    return row | {"outliers": int(outliers) if has_bulk and not math.isnan(outliers) else None}


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _conditions(spectrum: Spectrum, rank: int) -> dict[str, Number]:
    """Condition numbers; the divisor is above the noise floor and known to 1 %, or a bound."""
    s, q = spectrum.values, min(spectrum.shape)
    known = spectrum.lower > spectrum.noise_floor
    known &= spectrum.upper - spectrum.lower <= 0.01 * s
    number, status = metrics.condition_number(s, at=q), "ok"
    if spectrum.max_rank < q:
        status = "inf"
    elif not known[-1]:
        number, status = _least_condition(spectrum), "lower-bound"
    last = -(-9 * q // 10)  # ⌈0.9q⌉, in integers
    is_known = last > spectrum.max_rank or known[last - 1]
    return {
        "condition_number": number,
        "condition_number_status": status,
        "condition_number_raw": metrics.condition_number(s, at=q),
        "condition_number_r": (
            metrics.condition_number(s, at=rank) if rank and known[rank - 1] else None
        ),
        "condition_number_90": metrics.condition_number(s, at=last) if is_known else None,
    }


def _least_condition(spectrum: Spectrum) -> float:
    """A lower bound on the condition number: the last value may be as large as its upper end."""
    last = max(spectrum.noise_floor, float(spectrum.upper[-1]))
    with np.errstate(over="ignore"):
        return max(float(spectrum.lower[0] / last), 1.0) if last > 0 else math.inf
