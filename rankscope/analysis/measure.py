"""Every metric of one matrix, from its spectrum: the columns of the table."""

from __future__ import annotations

import math

import numpy as np

from rankscope import metrics
from rankscope.spectra.spectrum import Spectrum

METRICS = (
    "effective_rank",
    "per",
    "per_error",
    "per_gaussian",
    "rank_utilisation",
    "stable_rank",
    "participation_ratio",
    "noise_floor",
    "noise_source",
    "numerical_rank",
    "condition_number",
    "condition_number_status",
    "condition_number_raw",
    "condition_number_r",
    "condition_number_90",
    "noise_share",
    "spectral_norm",
    "frobenius_norm",
    "nuclear_norm",
    "max_rank",
    "sigma_error",
    "route",
)
# Those that grow with the matrix: not known of one that is known up to its scale.
SCALED = ("noise_floor", "spectral_norm", "frobenius_norm", "nuclear_norm", "sigma_error")
Number = float | int | str | None


def measure(spectrum: Spectrum) -> dict[str, Number]:
    """Metrics by column; None where a metric is not defined.

    A zero matrix has norms but no rank and no condition number; one without a spectrum has only
    its status; one that is known up to its scale has ranks and ratios but no norms.
    """
    row: dict[str, Number] = dict.fromkeys(METRICS)
    row["noise_source"], row["route"] = spectrum.noise_source, spectrum.route
    row["condition_number_status"] = ""
    if spectrum.status not in ("ok", "vector", "zero"):
        return row
    s = spectrum.values
    row |= {
        "per_gaussian": metrics.gaussian_per(spectrum.shape),
        "noise_floor": spectrum.noise_floor,
        "spectral_norm": metrics.spectral_norm(s),
        "frobenius_norm": metrics.frobenius_norm(s),
        "nuclear_norm": metrics.nuclear_norm(s),
        "max_rank": spectrum.max_rank,
        "sigma_error": spectrum.error,
    }
    if not spectrum.is_scaled:
        row |= dict.fromkeys(SCALED)
    return row if spectrum.status == "zero" else row | _ranks(spectrum) | _conditions(spectrum)


def _ranks(spectrum: Spectrum) -> dict[str, Number]:
    s, per = spectrum.values, metrics.proportional_effective_rank
    effective = metrics.effective_rank(s)
    rank = metrics.numerical_rank(spectrum.lower, spectrum.noise_floor)
    return {
        "effective_rank": effective,
        "per": per(s, shape=spectrum.shape),
        "per_error": metrics.effective_rank_error(s, spectrum.lower, spectrum.upper),
        "rank_utilisation": effective / spectrum.max_rank,
        "stable_rank": metrics.stable_rank(s),
        "participation_ratio": metrics.participation_ratio(s),
        "numerical_rank": rank,
        "noise_share": metrics.noise_share(s, spectrum.noise_floor, rank),
    }


def _conditions(spectrum: Spectrum) -> dict[str, Number]:
    """Condition numbers; none divides by a value below the noise floor, or not known to 1 %."""
    s, q = spectrum.values, min(spectrum.shape)
    rank = metrics.numerical_rank(spectrum.lower, spectrum.noise_floor)
    known = spectrum.lower > spectrum.noise_floor
    known &= spectrum.upper - spectrum.lower <= 0.01 * s
    number, status = metrics.condition_number(s, at=q), "ok"
    if spectrum.max_rank < q:
        status = "inf"
    elif not known[-1]:
        number, status = _least_condition(spectrum), "lower-bound"
    place = -(-9 * q // 10)  # ⌈0.9q⌉, in whole numbers
    is_known = place > spectrum.max_rank or known[place - 1]
    return {
        "condition_number": number,
        "condition_number_status": status,
        "condition_number_raw": metrics.condition_number(s, at=q),
        "condition_number_r": (
            metrics.condition_number(s, at=rank) if rank and known[rank - 1] else None
        ),
        "condition_number_90": metrics.condition_number(s, at=place) if is_known else None,
    }


def _least_condition(spectrum: Spectrum) -> float:
    """What the condition number is at least: the last value may be as large as its interval."""
    last = max(spectrum.noise_floor, float(spectrum.upper[-1]))
    with np.errstate(over="ignore"):
        return max(float(spectrum.lower[0] / last), 1.0) if last > 0 else math.inf
