"""Matrices with a prescribed spectrum."""

from __future__ import annotations

import torch
from torch import Tensor


def orthonormal(rows: int, columns: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(draw).Q


def matrix(shape: tuple[int, int], values: list[float], *, seed: int = 0) -> Tensor:
    """A matrix with the given singular values, and zeros for the rest."""
    k = len(values)
    left, right = (
        orthonormal(shape[0], k, seed=2 * seed),
        orthonormal(shape[1], k, seed=2 * seed + 1),
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def falling(n: int, base: float) -> list[float]:
    return [base**k for k in range(n)]
