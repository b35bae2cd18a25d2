"""Weights meet features: how much of what a layer reads lies where its weight looks.

The right singular vectors of a weight W, (m, d), are directions of the features x that it reads:
Wx is largest along the first. A weight of rank r passes on what lies in r of them, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from rankscope.errors import WrongSettingError
from rankscope.representations.feature_metrics import TOKENS_PER_DIMENSION
from rankscope.representations.feature_sums import FeatureSums
from rankscope.representations.weight_directions import WeightDirections
from rankscope.spectra.bounds import Values
from rankscope.spectra.chance import random_share_deviation
from rankscope.statistics.intervals import ratio_interval

EnergyStatus = Literal["ok", "one-block", "too-few-tokens", "zero", "nonfinite"]
_NUMBERS = (
    *("energy_share", "energy_share_low", "energy_share_high"),
    *("energy_share_chance", "energy_share_chance_deviation", "energy_share_best"),
    *("energy_passed", "energy_passed_low", "energy_passed_high", "energy_passed_chance"),
)
INPUT_ENERGY_COLUMNS = (
    *("status", "tokens", "dimensions", "k", *_NUMBERS),
    *(f"{name}_centred" for name in _NUMBERS),
)


@dataclass(frozen=True)
class DirectedSums:
    """Sums over the features x of some tokens, as the directions v of a weight see them.

    They take 8·(d + q) bytes, where `FeatureSums` take 8·d².

    Attributes
    ----------
    count
        Tokens that were summed.
    mean
        Of x, (d,).
    spread
        Σ‖x − mean‖².
    along
        Σ(vᵀ(x − mean))² of each direction, (q,).
    """

    count: int
    mean: Values
    spread: float
    along: Values

    @classmethod
    def of(cls, sums: FeatureSums, directions: WeightDirections) -> DirectedSums:
        """From sums over the same tokens that know no direction."""
        right = directions.right
        if sums.dimensions != directions.dimensions:
            raise WrongSettingError(
                f"a weight that reads {directions.dimensions} dimensions does not read features of "
                f"{sums.dimensions}"
            )
        along = np.einsum("ij,ij->i", right @ sums.scatter, right)
        return cls(sums.count, sums.mean, float(np.trace(sums.scatter)), along)

    @np.errstate(over="ignore", invalid="ignore")
    def plus(self, other: DirectedSums, directions: WeightDirections) -> DirectedSums:
        """Sums over the tokens of both; no mean is subtracted from a sum of squares."""
        count = self.count + other.count
        share = other.count / count if count else 0.0
        step = other.mean - self.mean
        weight = self.count * share
        return DirectedSums(
            count=count,
            mean=self.mean + step * share,
            spread=self.spread + other.spread + weight * float(step @ step),
            along=self.along + other.along + weight * np.square(directions.right @ step),
        )

    @np.errstate(over="ignore", invalid="ignore")
    def about(self, point: Values | float, directions: WeightDirections) -> tuple[Values, float]:
        """Σ(vᵀ(x − point))² of each direction, (q,), and Σ‖x − point‖²."""
        away = self.mean - point
        held = self.along + self.count * np.square(directions.right @ away)
        return held, self.spread + self.count * float(away @ away)


@dataclass(frozen=True)
class InputMoments:
    """Second moments of the features that one or more weights read."""

    total: FeatureSums

    @cached_property
    def plain(self) -> Moment:
        """Of x as it is."""
        return Moment.about(0.0, self.total)

    @cached_property
    def centred(self) -> Moment:
        """Of x minus its mean."""
        return Moment.about(self.total.mean, self.total)


@dataclass(frozen=True)
class Moment:
    """Σ(x − origin)(x − origin)ᵀ, (d, d), and its eigenvalues, ascending, (d,)."""

    origin: Values | float
    matrix: Values
    eigenvalues: Values

    @classmethod
    def about(cls, origin: Values | float, total: FeatureSums) -> Moment:
        """From sums over all tokens."""
        matrix = total.about(origin)
        return cls(origin, matrix, np.maximum(np.linalg.eigvalsh(matrix), 0))


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
    tokens: int
    dimensions: int
    k: int
    numbers: dict[str, float]

    def row(self) -> dict[str, float | int | str]:
        """Every name of `INPUT_ENERGY_COLUMNS`, NaN where there is no number."""
        row: dict[str, float | int | str] = dict.fromkeys(INPUT_ENERGY_COLUMNS, math.nan)
        sizes = {"tokens": self.tokens, "dimensions": self.dimensions, "k": self.k}
        return row | {"status": self.status} | sizes | self.numbers


def input_energy(
    directions: WeightDirections,
    blocks: Sequence[DirectedSums],
    *,
    inputs: InputMoments,
    k: int,
) -> InputEnergy:
    """Share of the features' energy in the leading k right singular vectors of a weight.

    Parameters
    ----------
    directions
        Those of W in y = Wx.
    blocks
        Sums over the features x that it reads, by block of documents.
    inputs
        Of all of them.
    k
        Up to the number of directions, such as those that hold 90 % of the weight's energy. 0, of a
        weight that is zero, gives the status ``zero``.

    Returns
    -------
    Numbers of the features as they are and, with ``_centred``, minus their mean, which may hold
    most of the energy. ``energy_share`` in [0, 1], with what random directions have, k/d, and its
    standard deviation, and what the best k directions of these features have. Where singular values
    around k are closer than twice the weight's error, the leading k directions are not determined,
    and the interval contains the share of every choice (`share_bounds`). ``energy_passed``,
    ‖WX‖²_F/(‖W‖₂²·‖X‖²_F) in [0, 1], is 1 where all features lie along the first right singular
    vector; a weight turned at random has ‖W‖²_F/(d·‖W‖₂²).

    Examples
    --------
    >>> import numpy as np
    >>> from rankscope.representations.feature_sums import FeatureSums, merged
    >>> from rankscope.representations.input_energy import DirectedSums, InputMoments, input_energy
    >>> from rankscope.representations.weight_directions import WeightDirections
    >>> rng = np.random.default_rng(0)
    >>> features = rng.normal(size=(16, 64, 4)) * [3, 1, 1, 1]  # nine twelfths in the first
    >>> sums = [FeatureSums.of(block) for block in features]
    >>> looks = WeightDirections.of(np.diag([1.0, 2, 1, 0]))  # at the second
    >>> blocks = [DirectedSums.of(one, looks) for one in sums]
    >>> row = input_energy(looks, blocks, inputs=InputMoments(merged(sums)), k=1).row()
    >>> {name: round(row[f"energy_share{name}"], 2) for name in ("", "_chance", "_best")}
    {'': 0.08, '_chance': 0.25, '_best': 0.74}
    """
    if not 0 <= k <= len(directions.values):
        raise WrongSettingError(
            f"`k` is {k}; the weight has {len(directions.values)} directions: give at most as many"
        )
    blocks = [block for block in blocks if block.count]
    total = inputs.total
    status = _status(directions, blocks, total, k)
    numbers: dict[str, float] = {}
    if status not in ("nonfinite", "zero"):
        numbers |= _numbers(directions, blocks, inputs.plain, k)
        if np.trace(total.scatter) > 0:
            of_centred = _numbers(directions, blocks, inputs.centred, k)
            numbers |= {f"{name}_centred": value for name, value in of_centred.items()}
    if status == "too-few-tokens":
        numbers = {name: one for name, one in numbers.items() if "_best" not in name}
    return InputEnergy(status, total.count, total.dimensions, k, numbers)


def _status(
    directions: WeightDirections, blocks: Sequence[DirectedSums], total: FeatureSums, k: int
) -> EnergyStatus:
    if total.nonfinite or not math.isfinite(total.energy):
        return "nonfinite"
    if not (k and directions.values[0] > 0 and total.energy > 0):
        return "zero"
    if total.count < TOKENS_PER_DIMENSION * total.dimensions:
        return "too-few-tokens"
    return "ok" if len(blocks) > 1 else "one-block"


def _numbers(
    directions: WeightDirections, blocks: Sequence[DirectedSums], moment: Moment, k: int
) -> dict[str, float]:
    dimensions = directions.dimensions
    held = [block.about(moment.origin, directions) for block in blocks]
    energies = np.array([energy for _, energy in held])
    squares = np.square(directions.values / directions.values[0])
    share = _of_blocks([along[:k].sum() for along, _ in held], energies)
    passed = _of_blocks([float(squares @ along) for along, _ in held], energies)
    low, high = share_bounds(directions, moment.matrix, k=k)
    energy = float(moment.eigenvalues.sum())
    return {
        "energy_share": share.value,
        "energy_share_low": max(share.low - max(share.value - low, 0.0), 0.0),
        "energy_share_high": min(share.high + max(high - share.value, 0.0), 1.0),
        "energy_share_chance": k / dimensions,
        "energy_share_chance_deviation": random_share_deviation(k, moment.eigenvalues / energy),
        "energy_share_best": float(moment.eigenvalues[-k:].sum()) / energy,
        "energy_passed": passed.value,
        "energy_passed_low": max(passed.low, 0.0),
        "energy_passed_high": min(passed.high, 1.0),
        "energy_passed_chance": float(squares.sum()) / dimensions,
    }


class _Share(NamedTuple):
    value: float
    low: float
    high: float


def _of_blocks(held: Sequence[float], energies: Values) -> _Share:
    parts = np.array(held, np.float64)
    return _Share(float(parts.sum() / energies.sum()), *ratio_interval(parts, energies))


def share_bounds(directions: WeightDirections, moment: Values, *, k: int) -> tuple[float, float]:
    """Least and largest share that the leading k directions may hold, given the weight's error.

    An error moves each singular value by at most ‖E‖₂, so that values within 2‖E‖₂ of the k-th or
    of the next may change places, and their vectors may mix in any way. Mixing with the others, an
    effect of order ‖E‖₂ over a gap that is larger, is not in it.

    Parameters
    ----------
    moment
        Σxxᵀ, (d, d).
    """
    s, right, near = directions.values, directions.right, 2 * directions.error
    if k == directions.dimensions:
        return 1.0, 1.0
    following = s[k] if k < len(s) else 0.0
    sure = int((s[:k] > following + near).sum())
    energy = float(np.trace(moment))
    held = float(np.vdot(right[:sure] @ moment, right[:sure])) / energy
    if sure == k:
        return held, held
    if s[k - 1] > near:
        unsure = right[sure : int((s >= s[k - 1] - near).sum())]
    else:  # directions in which the weight may be zero are among them
        unsure = np.linalg.qr(right[:sure].T, mode="complete")[0][:, sure:].T
    shares = np.linalg.eigvalsh(unsure @ moment @ unsure.T) / energy
    wanted = k - sure
    return held + float(shares[:wanted].sum()), held + float(shares[-wanted:].sum())
