"""The leading singular subspaces of two matrices, compared: arrays as well as checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from rankscope.errors import WrongSettingError
from rankscope.spectra.bases import Basis, basis_of
from rankscope.spectra.bounds import Values
from rankscope.spectra.chance import SIDES, Side
from rankscope.spectra.intruders import TOP
from rankscope.spectra.matrices import Decomposable, Dense, LowRank
from rankscope.spectra.nulls import cosines_between
from rankscope.spectra.singular_values import decomposable
from rankscope.spectra.subspace_measures import (
    Change,
    Measure,
    compare_products,
    compare_weights,
    off_by,
)

WHY_NOT = {
    "zero": "it is zero",
    "nonfinite": "an entry is NaN or infinite",
    "no-gap": "all that is left of it is rounding",
}
# What the later matrix would be by chance: the earlier one after a Gaussian change, or any other.
Chance = Literal["change", "unrelated"]


@dataclass(frozen=True)
class Decomposed:
    """A matrix and its leading singular vectors.

    Attributes
    ----------
    basis
        None where no vector is certain; then `why_not` says why.
    """

    matrix: Decomposable
    basis: Basis | None

    @classmethod
    def of(cls, matrix: Decomposable, most: int, chance: Chance) -> Decomposed:
        """Decompose once, for subspaces of up to ``most`` dimensions and for intruders."""
        if chance == "change" and isinstance(matrix, LowRank):
            matrix = matrix.dense()
        return cls(matrix, basis_of(matrix, max(most, TOP)))

    @property
    def why_not(self) -> Literal["zero", "nonfinite", "no-gap"]:
        """Why there is no basis, where there is none."""
        parts = (
            (self.matrix.values,)
            if isinstance(self.matrix, Dense)
            else (self.matrix.left, self.matrix.right)
            if isinstance(self.matrix, LowRank)
            else ()
        )
        if not all(np.isfinite(part).all() for part in parts):
            return "nonfinite"
        return "no-gap" if all(part.any() for part in parts) else "zero"


def compared(
    now: Decomposed,
    before: Decomposed,
    ks: Sequence[int],
    chance: Chance,
    *,
    key: tuple[str | int, ...],
) -> list[Measure]:
    """Measures of two matrices for subspaces of these sizes.

    Where one of them has no certain vector, one row for each side says why.
    """
    if now.basis is None or before.basis is None:
        status = (now if now.basis is None else before).why_not
        return [Measure("overlap", side, 0, None, None, None, None, status) for side in SIDES]
    if chance == "change" and isinstance(now.matrix, Dense) and isinstance(before.matrix, Dense):
        change = Change.between(now.matrix, before.matrix)
        return list(compare_weights(now.basis, before.basis, change, ks, key))
    return list(compare_products(now.basis, before.basis, ks))


def subspace_measures(
    now: ArrayLike | Decomposable,
    before: ArrayLike | Decomposable,
    *,
    k: int,
    chance: Chance | None = None,
) -> list[Measure]:
    """Compare the leading k-dimensional singular subspaces of two matrices of the same shape.

    Parameters
    ----------
    now, before
        Arrays of shape ``(m, n)``, `Dense` or `LowRank`, such as a weight at two steps, or two
        adapters.
    k
        Size of the subspaces.
    chance
        What to expect by chance, for ``null``: a Gaussian ``change`` of the same norm (by default
        unless a matrix is `LowRank`), or ``unrelated`` subspaces. Intruders and the energy of the
        update are measured only for changes.

    Returns
    -------
    One `Measure` for each number, which ``pandas.DataFrame`` accepts as rows: ``overlap``,
    ``least_cosine`` and ``update_energy`` for each side, and ``intruders`` among the top 10. The
    ``value`` is None where rounding may have chosen the subspace, and ``status`` says so.

    Raises
    ------
    WrongSettingError
        If ``k`` or ``chance`` is not possible, or the shapes differ.
    ValueError
        If an array does not have two axes or is complex.

    See Also
    --------
    principal_cosines : all cosines, rather than the smallest and the mean square.

    Examples
    --------
    Of four leading directions, one is replaced:

    >>> import numpy as np, rankscope as rs
    >>> before = np.diag([9.0, 8, 7, 6, 1, 1, 1, 1])
    >>> now = np.diag([9.0, 8, 7, 1, 6, 1, 1, 1])
    >>> found = {(one.measure, one.side): one for one in rs.subspace_measures(now, before, k=4)}
    >>> overlap, cosine = found["overlap", "left"], found["least_cosine", "left"]
    >>> round(overlap.value, 6), round(cosine.value, 6), overlap.error < 1e-12
    (0.75, 0.0, True)
    """
    later, earlier, chance = _taken(now, before, k, chance)
    decomposed = [Decomposed.of(one, k, chance) for one in (later, earlier)]
    return compared(decomposed[0], decomposed[1], (k,), chance, key=later.shape)


def principal_cosines(
    now: ArrayLike | Decomposable,
    before: ArrayLike | Decomposable,
    *,
    k: int,
    side: Side = "left",
) -> Values:
    """Cosines of the principal angles between the leading k-dimensional subspaces of two matrices.

    Parameters
    ----------
    now, before, k
        As for `subspace_measures`.
    side
        ``left`` singular vectors (what the matrices write to) or ``right`` ones (what they read).

    Returns
    -------
    Descending, shape ``(k,)``, from 0 (a direction is lost) to 1 (it is in both). Each is off by at
    most the ``error`` and ``noise`` of `subspace_measures`.

    Raises
    ------
    WrongSettingError
        As for `subspace_measures`.
    ValueError
        If rounding may have chosen one of the subspaces, or a matrix has no singular vectors.

    Examples
    --------
    The second of two directions is turned by 60 degrees:

    >>> import numpy as np, rankscope as rs
    >>> turned = np.array([[1, 0, 0], [0, 0.5, -(0.75**0.5)], [0, 0.75**0.5, 0.5]])
    >>> values = np.diag([3.0, 2.0, 1.0])
    >>> rs.principal_cosines(turned @ values, values, k=2).round(6)
    array([1. , 0.5])
    """
    if side not in SIDES:
        raise WrongSettingError(f"`side` is {side!r}: give {' or '.join(SIDES)}")
    pair = _taken(now, before, k, "unrelated")[:2]
    later, earlier = (Decomposed.of(one, k, "unrelated") for one in pair)
    for name, one in (("now", later), ("before", earlier)):
        if one.basis is None:
            raise ValueError(f"`{name}` has no certain singular vectors: {WHY_NOT[one.why_not]}")
    assert later.basis is not None and earlier.basis is not None
    is_there = k <= min(later.basis.count, earlier.basis.count)
    if not is_there or off_by(later.basis, earlier.basis, side, k) is None:
        raise ValueError(
            f"singular values {k} and {k + 1} are too close, or too small, for a certain subspace "
            f"of {k} dimensions: choose another `k`"
        )
    cross = cosines_between(later.basis, earlier.basis, side)[:k, :k]
    return np.asarray(np.minimum(np.linalg.svd(cross, compute_uv=False), 1.0))


def _taken(
    now: ArrayLike | Decomposable,
    before: ArrayLike | Decomposable,
    k: int,
    chance: Chance | None,
) -> tuple[Decomposable, Decomposable, Chance]:
    later, earlier = decomposable(now), decomposable(before)
    if later.shape != earlier.shape:
        shapes = " and ".join(str(one.shape) for one in (later, earlier))
        raise WrongSettingError(f"`now` and `before` have the shapes {shapes}: give one shape")
    most = min(_most(later), _most(earlier))
    if not (isinstance(k, int | np.integer) and 1 <= k <= most):
        what = "matrices" if most == min(later.shape) else f"products of rank {most} and a shape"
        raise WrongSettingError(f"`k` is {k!r}: give 1 to {most} for {what} of {later.shape}")
    if chance is None:
        are_dense = isinstance(later, Dense) and isinstance(earlier, Dense)
        chance = "change" if are_dense else "unrelated"
    if chance not in get_args(Chance):
        allowed = " or ".join(get_args(Chance))
        raise WrongSettingError(f"`chance` is {chance!r}: give {allowed}")
    return later, earlier, chance


def _most(matrix: Decomposable) -> int:
    """The highest rank that the construction of a matrix allows."""
    inner = matrix.inner if isinstance(matrix, LowRank) else min(matrix.shape)
    return min(inner, *matrix.shape)
