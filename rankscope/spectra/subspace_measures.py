"""How the leading singular subspaces of a matrix moved from one checkpoint to another.

Four measures, each with its certificate and what chance alone would give:

- ``overlap``, ‖U_kᵀU′_k‖²_F/k: 1 where the leading k-dimensional subspaces are the same, k over the
  number of dimensions where they are unrelated. It is the mean of the squared principal cosines.
- ``least_cosine``, the smallest singular value of U_kᵀU′_k: the smallest principal cosine, that of
  the direction which is turned furthest. One direction that is lost takes it to 0, and the overlap
  to 1 − 1/k.
- ``intruders``: how many of the top 10 left singular vectors have no counterpart, with a cosine of
  0.5 or more, among all earlier left singular vectors. R. Shuttleworth et al., "LoRA vs Full
  Fine-tuning: An Illusion of Equivalence", arXiv:2410.21228.
- ``update_energy``, ‖U_kᵀΔW‖²_F/‖ΔW‖²_F: the share of a change that is in the subspace of what it
  changed.

Vectors of the same index are not compared: a random change of 3 %, which moves singular values by a
few thousandths, takes their mean cosine to 0.7 while the leading 16-dimensional subspace stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankscope.spectra.bases import Basis
from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values
from rankscope.spectra.chance import SIDES, Side, random_least_cosine, random_overlap
from rankscope.spectra.intruders import Intruders, intruders_of
from rankscope.spectra.matrices import Dense, norm_of
from rankscope.spectra.nulls import Nulls, cosines_between
from rankscope.spectra.rounding import Rounding

MeasureName = Literal["overlap", "least_cosine", "intruders", "update_energy"]
STEP = 4  # sizes grow by this factor: 1, 4, 16, 64


@dataclass(frozen=True)
class Measure:
    """One number about a pair of subspaces.

    Attributes
    ----------
    k
        Size of the subspaces; for ``intruders``, how many vectors were examined.
    value
        None where the gap is too small for a number.
    error
        Bound on the error of the arithmetic; for ``intruders``, how many are undecided.
    noise
        The same for rounding to the storage format; None where that leaves nothing certain.
    null
        What chance alone would give.
    status
        ``ok``; ``no-gap``: rounding alone may have chosen the subspace, or nothing is certain;
        ``zero``: nothing changed, or there is no matrix; ``nonfinite``: an entry is NaN or
        infinite.
    """

    measure: MeasureName
    side: Side
    k: int
    value: float | None
    error: float | None
    noise: float | None
    null: float | None
    status: Literal["ok", "no-gap", "zero", "nonfinite"] = "ok"


@dataclass(frozen=True)
class Change:
    """The difference of two dense matrices.

    Attributes
    ----------
    values
        Later − earlier, (m, n).
    norm
        Its Frobenius norm.
    noise, error
        The Frobenius norm that rounding to the storage formats contributed, and a bound on that of
        the rounding error in forming both matrices.
    """

    values: Values
    norm: float
    noise: float
    error: float

    @classmethod
    def between(cls, later: Dense, earlier: Dense) -> Change:
        """Subtract in float64."""
        values = np.asarray(later.values, np.float64) - np.asarray(earlier.values, np.float64)
        noise = math.hypot(_energy(later.rounding), _energy(earlier.rounding))
        return cls(values, norm_of(values).value, noise, later.error + earlier.error)


def sizes(most: int, *ranks: int) -> tuple[int, ...]:
    """Sizes of the subspaces to compare: 1, 4, 16, … and ``most``, and the ranks up to it."""
    grown = [STEP**i for i in range(32) if STEP**i < most]
    return tuple(sorted({*grown, most, *(rank for rank in ranks if 0 < rank <= most)}))


def compare_products(now: Basis, before: Basis, ks: Sequence[int]) -> Iterator[Measure]:
    """Compare two products, such as successive merges: by chance they would be unrelated."""
    for side in SIDES:
        dimensions = now.shape[0] if side == "left" else now.shape[1]
        cross = cosines_between(now, before, side)
        for k in _possible(ks, now, before):
            nulls = random_overlap(k, dimensions), random_least_cosine(k, dimensions)
            yield from _overlaps(now, before, k, cross[:k, :k], side, nulls)


def compare_weights(
    now: Basis, before: Basis, change: Change, ks: Sequence[int], key: tuple[str | int, ...]
) -> Iterator[Measure]:
    """Compare a weight with itself at an earlier step: by chance the change would be Gaussian.

    Parameters
    ----------
    key
        What a simulation of chance depends on, besides the change's norm.
    """
    # Of all dimensions of the short side, every matrix has the same subspace.
    inner = [k for k in _possible(ks, now, before) if k < min(now.shape)]
    nulls = Nulls(before, change.norm, inner, key)
    for side in SIDES:
        cross = cosines_between(now, before, side)
        dimensions = now.shape[0] if side == "left" else now.shape[1]
        for k in inner:
            chance = nulls.overlap(side, k), nulls.least_cosine(side, k)
            yield from _overlaps(now, before, k, cross[:k, :k], side, chance)
        within = [k for k in _possible(ks, before, before) if k < dimensions]
        shares = _shares(before, change, side, max(within, default=0))
        for k in within:
            share = None if shares is None else float(shares[min(k, before.count) - 1])
            yield _update_energy(before, change, side, k, share)
    found = intruders_of(now, before)
    if found is not None:
        yield _intruders(found, nulls)


def _overlaps(
    now: Basis,
    before: Basis,
    k: int,
    cross: Values,
    side: Side,
    nulls: tuple[float | None, float | None],
) -> Iterator[Measure]:
    """Overlap and smallest cosine of the subspaces whose vectors have these cosines, (k, k).

    If projections turn by the sines ε and ε′, singular values of their product, the principal
    cosines, move by at most ε + ε′ (Weyl); and so does the mean of their squares, its trace.
    """
    names: tuple[MeasureName, MeasureName] = ("overlap", "least_cosine")
    error = off_by(now, before, side, k)
    if error is None:
        yield from (
            Measure(name, side, k, None, None, None, null, "no-gap")
            for name, null in zip(names, nulls, strict=True)
        )
        return
    noise = _known(now.noise(k) + before.noise(k))
    values = float((cross**2).sum() / k), float(np.linalg.svd(cross, compute_uv=False)[-1])
    for name, value, null in zip(names, values, nulls, strict=True):
        yield Measure(name, side, k, value, error, noise, null)


def off_by(now: Basis, before: Basis, side: Side, k: int) -> float | None:
    """Bound on the error of a cosine of two leading subspaces; None where they are not certain."""
    if not (now.is_resolved(k) and before.is_resolved(k)):
        return None
    dimensions = now.shape[0] if side == "left" else now.shape[1]
    error = now.error(k) + before.error(k) + 2 * (dimensions + k) * UNIT_ROUNDOFF
    return error if error < 1 else None


def _shares(before: Basis, change: Change, side: Side, most: int) -> Values | None:
    """Shares of a change's energy in the leading subspaces of 1 to ``most`` dimensions."""
    if change.norm == 0:
        return None
    inside = (
        before.left[:, :most].T @ change.values
        if side == "left"
        else (change.values @ before.right[:, :most]).T
    )
    inside /= change.norm
    return np.cumsum(np.einsum("ij,ij->i", inside, inside))


def _update_energy(
    before: Basis, change: Change, side: Side, k: int, share: float | None
) -> Measure:
    null = random_overlap(k, before.shape[0] if side == "left" else before.shape[1])
    if share is None:
        return Measure("update_energy", side, k, None, None, None, null, "zero")
    if not before.is_resolved(k):
        return Measure("update_energy", side, k, None, None, None, null, "no-gap")
    # An error E of a change turns it by at most ‖E‖/‖ΔW‖, and moves its share by no more.
    error = before.error(k) + change.error / change.norm
    error += 4 * (max(before.shape) + k) * UNIT_ROUNDOFF
    if error >= 1:
        return Measure("update_energy", side, k, None, None, None, null, "no-gap")
    # Twice, since the norm of the rounding is an expected one.
    noise = before.noise(k) + 2 * change.noise / change.norm
    return Measure("update_energy", side, k, share, error, _known(noise), null)


def _intruders(found: Intruders, nulls: Nulls) -> Measure:
    return Measure(
        "intruders",
        "left",
        found.count,
        found.certain,
        found.undecided,
        found.undecided_by_storage,
        nulls.intruders(found.count),
    )


def _possible(ks: Sequence[int], now: Basis, before: Basis) -> list[int]:
    """Sizes up to the ranks that both constructions allow; the matrices may have lower ones."""
    return [k for k in ks if k <= min(len(now.values), len(before.values))]


def _known(noise: float) -> float | None:
    """A bound, if it says anything about a number between 0 and 1."""
    return noise if noise < 1 else None


def _energy(rounding: Rounding) -> float:
    """Frobenius norm of the rounding in a matrix."""
    return math.hypot(rounding.unit * math.sqrt(float(rounding.rows.sum())), rounding.beside)
