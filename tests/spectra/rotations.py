"""Matrices whose singular vectors are turned by prescribed angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Matrix:
    q, _ = np.linalg.qr(rng.normal(size=(rows, columns)))
    return np.asarray(q)


def turned(basis: Matrix, planes: dict[tuple[int, int], float]) -> Matrix:
    """The same vectors with those of each plane (i, j) turned by an angle in it."""
    found = basis.copy()
    for (i, j), angle in planes.items():
        found[:, i] = np.cos(angle) * basis[:, i] + np.sin(angle) * basis[:, j]
        found[:, j] = np.cos(angle) * basis[:, j] - np.sin(angle) * basis[:, i]
    return found


def pair(
    rng: np.random.Generator,
    shape: tuple[int, int],
    s: Matrix,
    left: dict[tuple[int, int], float],
    right: dict[tuple[int, int], float],
) -> tuple[Matrix, Matrix]:
    """A matrix with singular values s, and the same with vectors turned."""
    u, v = orthonormal(rng, shape[0], len(s)), orthonormal(rng, shape[1], len(s))
    return u * s @ v.T, turned(u, left) * s @ turned(v, right).T


def overlap_of(planes: dict[tuple[int, int], float], k: int) -> float:
    """Overlap of the leading k vectors with what they were before they were turned."""
    lost = sum(np.sin(angle) ** 2 for (i, j), angle in planes.items() if i < k <= j)
    return 1 - float(lost) / k
