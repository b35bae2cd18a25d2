"""Matrices as they are stored, and updates recovered from two stored weights.

E is the error that rounding really made, in float64. Every case has its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.metrics import numerical_rank
from rankscope.spectra.matrices import Dense
from rankscope.spectra.rounding import Rounding, rounding_of
from rankscope.spectra.singular_values import spectra
from tests.spectra.gallery import rounded

Matrix = NDArray[np.float64]
Shape = tuple[int, int]

FORMATS = ("bfloat16", "float16", "float32")
SHAPES = [(q, q * ratio) for q in (32, 64, 128) for ratio in (1, 2, 4, 8)] + [(512, 512), (384, 96)]


def _outlier(rng: np.random.Generator, shape: Shape, axis: int) -> Matrix:
    size = [1, 1]
    size[axis] = shape[axis]
    return rng.normal(size=shape) * np.where(np.arange(shape[axis]) % 32 == 0, 50, 1).reshape(size)


def _blocks(rng: np.random.Generator, shape: Shape) -> Matrix:
    scale = 10.0 ** rng.uniform(-3, 0, (shape[0] // 8, shape[1] // 8))
    return rng.normal(size=shape) * np.kron(scale, np.ones((8, 8)))


DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, Shape], Matrix]] = {
    "Gaussian": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "Student t, 2 dof": lambda rng, shape: rng.standard_t(2, shape),
    "lognormal": lambda rng, shape: rng.lognormal(0, 2, shape) * rng.choice([-1, 1], shape),
    "rank 4": lambda rng, shape: rng.normal(size=(shape[0], 4)) @ rng.normal(size=(4, shape[1])),
    "outlier rows": lambda rng, shape: _outlier(rng, shape, 0),
    "outlier columns": lambda rng, shape: _outlier(rng, shape, 1),
    "block scaled": _blocks,
}


def floor_ratio(values: Matrix, dtype: str) -> float:
    """Noise floor over ‖E‖₂ for one matrix stored in a format."""
    stored = rounded(values, dtype)
    error = float(np.linalg.norm(stored.values - values, 2))
    return stored.dense().rounding.floor / error


class Update(NamedTuple):
    """A weight before and after k merges of rank r, as stored, and what was really added."""

    earlier: Matrix
    later: Matrix
    added: Matrix
    dtype: str
    merges: int

    @property
    def rounding(self) -> Rounding:
        """What the difference is held against: each merge rounds, and so did the first store."""
        held = [x.astype(np.float32) for x in (self.earlier, self.later)]
        earlier, later = (rounding_of(x, self.dtype) for x in held)
        return later * self.merges + earlier

    @property
    def rank(self) -> int:
        """Numerical rank of the difference of what was stored."""
        (found,) = spectra(Dense(self.later - self.earlier, self.dtype, self.rounding))
        return numerical_rank(found.lower, found.noise_floor)

    @property
    def coverage(self) -> float:
        """Noise floor over the norm of the error of the difference."""
        error = np.linalg.norm(self.later - self.earlier - self.added, 2)
        return self.rounding.floor / float(error)


def update(
    rng: np.random.Generator,
    weight: Matrix,
    dtype: str,
    *,
    rank: int,
    size: float,
    merges: int = 1,
    is_single: bool = False,
) -> Update:
    """Merge k random products of rank r into a weight of ‖W‖ = 1, each of norm ``size``.

    With ``is_single`` product and sum are made in float32, else in float64.
    """
    m, n = weight.shape
    earlier = now = rounded(weight / np.linalg.norm(weight, 2), dtype).values
    added = np.zeros_like(now)
    for _ in range(merges):
        left = rng.normal(size=(m, rank)).astype(np.float32)
        left *= np.float32(size / np.sqrt(m * n))
        right = rng.normal(size=(rank, n)).astype(np.float32)
        added += left.astype(np.float64) @ right
        if is_single:
            now = rounded(now.astype(np.float32) + left @ right, dtype).values
        else:
            now = rounded(now + left.astype(np.float64) @ right, dtype).values
    return Update(earlier, now, added, dtype, merges)


def iter_updates(
    *, is_single: bool, formats: tuple[str, ...], shapes: list[Shape]
) -> Iterator[tuple[int, float, Update]]:
    """Updates of several ranks, sizes and numbers of merges: (true rank, size, update)."""
    for case, (dtype, shape) in enumerate((d, s) for d in formats for s in shapes):
        rng = np.random.default_rng(case)
        for make in DISTRIBUTIONS.values():
            for size in (1.0, 0.1, 0.01, 1e-3):
                for rank, merges in ((2, 1), (8, 1), (8, 3)):
                    weight = make(rng, shape)
                    found = update(
                        rng, weight, dtype, rank=rank, size=size, merges=merges, is_single=is_single
                    )
                    yield min(rank * merges, *shape), size, found
