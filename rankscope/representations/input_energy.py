"""Weights meet features: how much of what a layer reads lies where its weight looks.

The right singular vectors of a weight W, (m, d), are directions of the features x that it reads:
Wx is largest along the first. A weight of rank r passes on what lies in r of them, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rankscope.errors import WrongSettingError
from rankscope.representations.feature_metrics import TOKENS_PER_DIMENSION
from rankscope.representations.feature_sums import FeatureSums, merged
from rankscope.spectra.bounds import Values, svd_bound
from rankscope.statistics.intervals import ratio_interval

EnergyStatus = Literal["ok", "one-block", "too-few-tokens", "zero", "nonfinite"]
INPUT_ENERGY_COLUMNS = (
    *("status", "k", "energy_share", "energy_share_low", "energy_share_high"),
    *("energy_share_chance", "energy_share_best"),
    *("energy_passed", "energy_passed_low", "energy_passed_high"),
)


@dataclass(frozen=True)
class InputEnergy:
    """How the features lie in a weight's leading directions, and what it passes on.

    Attributes
    ----------
    status
        ``ok``; ``one-block``, without intervals; ``too-few-tokens``, fewer than 4·d, without the
        best share; ``zero`` where the weight or the features are zero and ``nonfinite``, without
        any number.
    k
        Leading right singular vectors that count.
    numbers
        The other columns of `INPUT_ENERGY_COLUMNS` that have a value.
    """

    status: EnergyStatus
    k: int
    numbers: dict[str, float]

    def row(self) -> dict[str, float | int | str]:
        """Every name of `INPUT_ENERGY_COLUMNS`, NaN where there is no number."""
        row: dict[str, float | int | str] = dict.fromkeys(INPUT_ENERGY_COLUMNS, math.nan)
        return row | {"status": self.status, "k": self.k} | self.numbers


def input_energy(
    weight: Values,
    blocks: Sequence[FeatureSums],
    *,
    k: int,
    weight_error: float = 0.0,
    centred: bool = False,
) -> InputEnergy:
    """Share of the features' energy in the leading k right singular vectors of a weight.

    Parameters
    ----------
    weight
        W of y = Wx, shape (m, d), float64.
    blocks
        Sums over the features x that it reads.
    k
        From 1 to min(m, d), such as the rank that holds 90 % of the weight's energy, or r.
    weight_error
        ‖E‖₂ of the rounding of the weight, such as its noise floor. Where the singular values
        around k are closer than that, the leading k directions are not determined, and the interval
        contains the share of every choice (`share_bounds`).
    centred
        Whether features count minus their mean, which may hold most of the energy.

    Returns
    -------
    ``energy_share`` in [0, 1], with what random directions have (k/d) and what the best k
    directions of these features have. ``energy_passed``, ‖WX‖²_F/(‖W‖₂²·‖X‖²_F) in [0, 1], is 1
    where all features lie along the first right singular vector.

    Examples
    --------
    >>> import numpy as np
    >>> from rankscope.representations.feature_sums import FeatureSums
    >>> from rankscope.representations.input_energy import input_energy
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(16, 64, 4)) * [3, 1, 1, 1]  # nine twelfths in the first
    >>> blocks = [FeatureSums.of(block) for block in features]
    >>> row = input_energy(np.diag([1.0, 2, 1, 0]), blocks, k=1).row()  # looks at the second
    >>> {name: round(row[f"energy_share{name}"], 2) for name in ("", "_chance", "_best")}
    {'': 0.08, '_chance': 0.25, '_best': 0.74}
    """
    total = merged(blocks)
    if weight.ndim != 2 or weight.shape[1] != total.dimensions:
        raise WrongSettingError(
            f"a weight of shape {weight.shape} does not read features of {total.dimensions} "
            "dimensions: expected (m, d)"
        )
    if not 1 <= k <= min(weight.shape):
        raise WrongSettingError(
            f"`k` is {k}; a weight of shape {weight.shape} has 1 to {min(weight.shape)} directions"
        )
    blocks = [block for block in blocks if block.count]
    origin = total.mean if centred else 0.0
    moments = [block.about(origin) for block in blocks]
    energies = np.array([np.trace(moment) for moment in moments], np.float64)
    finite = not total.nonfinite and np.isfinite(energies).all() and np.isfinite(weight).all()
    if not finite:
        return InputEnergy("nonfinite", k, {})
    if not (energies.sum() > 0 and weight.any()):
        return InputEnergy("zero", k, {})
    s, right = _directions(weight)
    error = weight_error + svd_bound(float(s[0]), long_side=max(weight.shape))
    moment = total.about(origin)
    share = _of_blocks([_held(right[:k], one) for one in moments], energies)
    bounds = share_bounds(s, right, moment, k=k, error=error)
    passed = _of_blocks([_held(weight, one) / s[0] ** 2 for one in moments], energies)
    enough = total.count >= TOKENS_PER_DIMENSION * total.dimensions
    numbers = {
        "energy_share": share.value,
        "energy_share_low": max(share.low - (share.value - bounds[0]), 0.0),
        "energy_share_high": min(share.high + (bounds[1] - share.value), 1.0),
        "energy_share_chance": k / total.dimensions,
        "energy_share_best": _best(moment, k) if enough else math.nan,
        "energy_passed": passed.value,
        "energy_passed_low": max(passed.low, 0.0),
        "energy_passed_high": min(passed.high, 1.0),
    }
    status: EnergyStatus = "ok" if len(blocks) > 1 else "one-block"
    return InputEnergy(status if enough else "too-few-tokens", k, numbers)


def _directions(weight: Values) -> tuple[Values, Values]:
    """All d right singular vectors, one a row, and their values, of which d − m are zero."""
    rows, columns = weight.shape
    s, right = np.linalg.svd(weight, full_matrices=rows < columns)[1:]
    return np.pad(s, (0, columns - len(s))), right


class _Share(NamedTuple):
    value: float
    low: float
    high: float


def _of_blocks(held: Sequence[float], energies: Values) -> _Share:
    parts = np.array(held, np.float64)
    return _Share(float(parts.sum() / energies.sum()), *ratio_interval(parts, energies))


def _held(rows: Values, moment: Values) -> float:
    """Σ‖Rx‖² for rows R, from Σxxᵀ."""
    return float(np.vdot(rows @ moment, rows))


def _best(moment: Values, k: int) -> float:
    eigenvalues = np.maximum(np.linalg.eigvalsh(moment), 0)
    return float(eigenvalues[-k:].sum() / eigenvalues.sum())


def share_bounds(
    s: Values, right: Values, moment: Values, *, k: int, error: float
) -> tuple[float, float]:
    """Least and largest share that the leading k directions may hold, given ‖E‖₂ of the weight.

    An error moves each singular value by at most ‖E‖₂, so that values within 2‖E‖₂ of the k-th or
    of the next may change places, and their vectors may mix in any way. Mixing with the others, an
    effect of order ‖E‖₂ over a gap that is larger, is not in it.
    """
    if k == len(s):
        return 1.0, 1.0
    sure = int((s[:k] > s[k] + 2 * error).sum())
    end = int((s >= s[k - 1] - 2 * error).sum())
    energy = float(np.trace(moment))
    held = _held(right[:sure], moment) / energy
    if sure == k:
        return held, held
    unsure = right[sure:end]
    shares = np.linalg.eigvalsh(unsure @ moment @ unsure.T) / energy
    wanted = k - sure
    return held + float(shares[:wanted].sum()), held + float(shares[-wanted:].sum())
