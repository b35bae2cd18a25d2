"""Weights that a model computes from several stored tensors before it multiplies with them.

Each is what torch's module has in its attribute ``weight``, computed in float64. They are always
read whole: any part of such a tensor depends on all of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.tensors import OnDisk, StoredTensor, Tensor
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Derived(OnDisk):
    """A tensor that is computed from others.

    Attributes
    ----------
    name
        Its name in the model, such as ``fc.weight``; no file has a tensor of this name.
    stored
        The tensor that has its shape and whose format rounds it.
    """

    name: str
    stored: Tensor

    @property
    @abstractmethod
    def parts(self) -> tuple[Tensor, ...]:
        """Every stored tensor that it is computed from."""

    @abstractmethod
    def computed(self) -> NDArray[np.float64]:
        """Its values."""

    @property
    def dtype(self) -> str:
        """Format of the stored tensor."""
        return self.stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self.stored.shape

    @property
    @override
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for part in self.parts for path in part.paths))

    @override
    def read(self) -> NDArray[Any]:
        return self.computed()


@dataclass(frozen=True)
class Masked(Derived):
    """Pruning as in torch: ``stored · mask``, where the mask is 0 at pruned entries."""

    mask: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The weight before pruning, and the mask."""
        return self.stored, self.mask

    def mask_values(self) -> NDArray[Any]:
        """The mask, whose numbers may be integers."""
        return self.mask.numbers() if isinstance(self.mask, StoredTensor) else self.mask.read()

    def computed(self) -> NDArray[np.float64]:
        """The product, entry by entry."""
        values = self.stored.read().astype(np.float64)
        return np.asarray(values * self.mask_values(), np.float64)


@dataclass(frozen=True)
class Normalised(Derived):
    """Weight norm: ``gain · stored / ‖stored‖``, a norm over the axes where the gain has size 1."""

    gain: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The gain and the direction."""
        return self.gain, self.stored

    def computed(self) -> NDArray[np.float64]:
        """The direction, scaled to the norms that the gain gives."""
        direction = self.stored.read().astype(np.float64)
        gain = self.gain.read().astype(np.float64)
        return np.asarray(direction * self.numbers(direction, gain), np.float64)

    def numbers(
        self, direction: NDArray[np.float64], gain: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Factors of the entries of the direction: the gain over their norm."""
        over = tuple(
            axis for axis in range(direction.ndim) if gain.ndim == 0 or gain.shape[axis] == 1
        )
        norms = np.sqrt(np.sum(direction**2, axis=over, keepdims=True))
        return np.asarray(_ratio(gain, norms, self), np.float64)


@dataclass(frozen=True)
class SpectrallyNormalised(Derived):
    """Spectral norm: ``stored / σ``, σ = uᵀ·W·v with the vectors that torch keeps for it.

    W is ``stored`` as a matrix with one of its axes as rows. Where two axes fit the vectors, it is
    the one with the larger σ: the vectors are close to singular vectors of the right one.
    """

    left: Tensor  # u
    right: Tensor  # v

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The weight before the division, and both vectors."""
        return self.stored, self.left, self.right

    def computed(self) -> NDArray[np.float64]:
        """The weight over torch's estimate, outside of training, of its largest singular value."""
        weight = self.stored.read().astype(np.float64)
        u, v = (vector.read().astype(np.float64) for vector in (self.left, self.right))
        return np.asarray(weight * (1.0 / self.estimated(weight, u, v)[1]), np.float64)

    def estimated(
        self, weight: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """The weight as the matrix that the vectors belong to, and σ.

        Raises
        ------
        RankscopeError
            If σ is zero.
        """
        matrices = [
            np.moveaxis(weight, axis, 0).reshape(len(u), -1)
            for axis in axes_of_spectral_norm(weight.shape, len(u), len(v))
        ]
        sigmas = [float(u @ matrix @ v) for matrix in matrices]
        best = max(range(len(sigmas)), key=lambda i: abs(sigmas[i]))
        _ratio(1.0, sigmas[best], self)
        return matrices[best], sigmas[best]


def axes_of_spectral_norm(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[int]:
    """Axes that may be the rows of the matrix that vectors of these lengths belong to."""
    count = int(np.prod(shape))
    first = (axis for axis, size in enumerate(shape) if size == rows and rows * columns == count)
    return first if len(shape) > 2 else iter(list(first)[:1])


def _ratio(over: Any, under: Any, tensor: Derived) -> Any:
    if not np.all(under):
        raise RankscopeError(
            "divides by a norm of zero, so this weight is not defined",
            path=tensor.paths[0],
            tensor=tensor.name,
        )
    return over / under
