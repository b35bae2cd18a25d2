"""Noise floor of a product with a factor of all products of two matrices' columns, as in LoHa.

The errors of such a factor are not independent entry by entry, but those of the two matrices are:
the error E of the product is a sum of known matrices, each times an independent error. The norm of
such a sum is close to

    √‖𝔼[E·Eᵀ]‖ + √‖𝔼[Eᵀ·E]‖

(A. Bandeira, M. Boedihardjo and R. van Handel, "Matrix concentration inequalities and free
probability", Invent. Math. 234 (2023), 419), which for independent entries is the edge of
`rankscope.spectra.rounding`. For E = δL·R + L·δR, where the rows of δL are independent,

    𝔼[E·Eᵀ] = diag(tr(R·Rᵀ·Σᵢ)) + L·𝔼[δR·δRᵀ]·Lᵀ

where Σᵢ is the covariance of row i of δL; 𝔼[Eᵀ·E] follows with L and R exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rankscope.components.formed import Formed
from rankscope.spectra.bounds import Values
from rankscope.spectra.matrices import Matrix
from rankscope.spectra.rounding import MARGIN, deviations, unit_exponent


@dataclass(frozen=True)
class _Stored:
    """A factor whose entries are rounded independently, divided by a power of two."""

    values: Values  # (m, p)
    variances: Values  # (m, p)

    @property
    def gram(self) -> Values:
        """𝔼[δᵀ·δ], (p, p)."""
        return np.diag(self.variances.sum(axis=0))

    def by_row(self, form: Values) -> Values:
        """tr(form·Σᵢ) for each row i."""
        return np.asarray(self.variances @ np.diag(form))


@dataclass(frozen=True)
class _KhatriRao:
    """A factor of all products of a column of one matrix with a column of another."""

    first: _Stored
    second: _Stored

    @cached_property
    def values(self) -> Values:
        first, second = self.first.values, self.second.values
        return np.asarray((first[:, :, None] * second[:, None, :]).reshape(len(first), -1))

    @property
    def gram(self) -> Values:
        a, b, va, vb = self._parts
        (_, k), (_, n) = a.shape, b.shape
        gram = np.zeros((k, n, k, n))
        for i in range(k):
            gram[i, :, i, :] += b.T @ (va[:, i, None] * b) + np.diag(va[:, i] @ vb)
        for i in range(n):
            gram[:, i, :, i] += a.T @ (vb[:, i, None] * a)
        return gram.reshape(k * n, k * n)

    def by_row(self, form: Values) -> Values:
        a, b, va, vb = self._parts
        (_, k), (_, n) = a.shape, b.shape
        form = form.reshape(k, n, k, n)
        both = np.einsum("ijij->ij", form)
        rows = np.einsum("ri,ij,rj->r", va, both, vb)
        for i in range(k):
            rows += va[:, i] * np.einsum("rj,jl,rl->r", b, form[i, :, i, :], b)
        for i in range(n):
            rows += vb[:, i] * np.einsum("rj,jl,rl->r", a, form[:, i, :, i], a)
        return np.asarray(rows)

    @property
    def _parts(self) -> tuple[Values, Values, Values, Values]:
        return (
            *(self.first.values, self.second.values),
            *(self.first.variances, self.second.variances),
        )


def joint_floor(left: Formed, right: Formed) -> float | None:
    """Noise floor of ``left @ right`` from the independent errors in both.

    Returns
    -------
    None if neither factor has `Formed.made_of`, or if more than the storage of entries rounds them.
    """
    if left.made_of is None and right.made_of is None:
        return None
    parts = [*(left.made_of or (left,)), *(right.made_of or (right,))]
    if not all(one.is_as_stored and np.isfinite(one.values).all() for one in parts):
        return None
    exponents = [unit_exponent(one.values) for one in parts]
    scaled = [_scaled(one, exponent) for one, exponent in zip(parts, exponents, strict=True)]
    count = 1 if left.made_of is None else 2
    tall, wide = _joined(scaled[:count]), _joined([_turned(one) for one in scaled[count:]])
    forms = tall.values.T @ tall.values, wide.values.T @ wide.values
    rows = float(tall.by_row(forms[1]).max()) + _largest(wide.gram, forms[0])
    columns = float(wide.by_row(forms[0]).max()) + _largest(tall.gram, forms[1])
    return float(np.ldexp(MARGIN * (rows**0.5 + columns**0.5), sum(exponents)))


def _scaled(one: Formed, exponent: int) -> _Stored:
    errors = [deviations(values, kind, exponent=exponent) for values, kind in one.stored]
    values = np.ldexp(one.values.astype(np.float64), -exponent)
    return _Stored(values, np.asarray(sum(error**2 for error in errors)))


def _turned(one: _Stored) -> _Stored:
    return _Stored(one.values.T, one.variances.T)


def _joined(parts: list[_Stored]) -> _Stored | _KhatriRao:
    return parts[0] if len(parts) == 1 else _KhatriRao(*parts)


def _largest(covariance: Matrix, form: Matrix) -> float:
    """Largest eigenvalue of the product of two positive semidefinite matrices."""
    squares, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(squares, 0))
    return max(float(np.linalg.eigvalsh(root.T @ form @ root)[-1]), 0.0)
