"""Linear algebra on a GPU, through torch in float64; tests run it on the processor."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rankscope.spectra.backends import Gram, Inverse, Triangle, scaling_exponent
from rankscope.spectra.bounds import Values

if TYPE_CHECKING:
    from rankscope.spectra.matrices import Matrix

BATCH = 64
BATCH_BYTES = 2**30
SMALL = 32  # up to this size drivers solve a batch of eigenproblems together, beyond it in turn
STREAMS = 3  # matrices on a device at a time: while one is copied, two are decomposed


class TorchBackend:
    """A device of torch, which several threads may use.

    Parameters
    ----------
    device
        ``cuda``, ``cuda:1``, or ``cpu``.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self._is_gpu = self.device.type == "cuda"
        # The first call loads a library, which fails where two threads make it at once.
        torch.linalg.eigvalsh(torch.eye(2, dtype=torch.float64, device=self.device)[None])
        self._places = threading.BoundedSemaphore(STREAMS)
        self._streams = [
            torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            for _ in range(STREAMS * self._is_gpu)
        ]

    @contextmanager
    def place(self) -> Iterator[None]:
        """Wait for one of a few places on the device; within the block, use a stream of its own."""
        with self._places:
            stream = self._streams.pop() if self._is_gpu else None
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                if stream is not None:
                    self._streams.append(stream)

    def buffer(self, size: int) -> Tensor:
        """Bytes that the device can copy by itself; torch uses their memory again and again."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._is_gpu)

    def batch_size(self, shape: tuple[int, int]) -> int:
        """How many matrices of this shape to give to `grams` at once."""
        if min(shape) > SMALL:
            return 1
        one = max(8 * shape[0] * shape[1], 1)  # bytes
        return min(BATCH, max(1, BATCH_BYTES // one))

    def in_range(self, values: Matrix | Tensor, *, is_ordinary: bool = False) -> tuple[Tensor, int]:
        """The entries in float64 on the device, divided by a power of two, and its exponent."""
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.ascontiguousarray(values))
        held = values.to(self.device, non_blocking=True)
        if is_ordinary or held.dtype != torch.float64:
            return held.to(torch.float64), 0
        exponent = scaling_exponent(float(held.abs().amax()))
        return (held * 2.0**-exponent if exponent else held), exponent

    def grams(self, matrices: Sequence[Tensor]) -> list[Gram]:
        """Gram matrices of matrices of one shape, and their eigenvalues, as one batch."""
        stack = matrices[0][None] if len(matrices) == 1 else torch.stack(list(matrices))
        wide = stack if stack.shape[1] <= stack.shape[2] else stack.mT
        return self._described(wide @ wide.mT)

    def _described(self, gram: Tensor) -> list[Gram]:
        traces = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
        energies = (gram * gram).sum(dim=(1, 2))
        parts = zip(traces.tolist(), energies.tolist(), self._squares(gram, traces), strict=True)
        return [Gram(*one) for one in parts]

    def _squares(self, gram: Tensor, traces: Tensor) -> list[Values | None]:
        """Eigenvalues, descending; None for a matrix that is not finite or whose solver failed."""
        finite = torch.isfinite(traces)
        solved = iter(self._solved(gram if bool(finite.all()) else gram[finite]))
        return [next(solved) if ok else None for ok in finite.tolist()]

    def _solved(self, gram: Tensor) -> list[Values | None]:
        try:
            return list(torch.linalg.eigvalsh(gram).flip(-1).cpu().numpy())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # of which torch's LinAlgError is a kind
            return [None] if len(gram) == 1 else [self._solved(one[None])[0] for one in gram]

    def inverse(self, matrix: Tensor) -> Inverse | None:
        """An inverse of the triangular factor, which is the Cholesky factor of the Gram matrix."""
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
        lower, failed = torch.linalg.cholesky_ex(tall.mT @ tall)
        if int(failed):
            return None
        one = torch.eye(len(lower), dtype=lower.dtype, device=self.device)
        inverse = torch.linalg.solve_triangular(lower, one, upper=False).mT
        near = tall @ inverse
        products = near.mT @ near
        residual = float(torch.linalg.matrix_norm(products - one))
        (gram,) = self._described((inverse @ inverse.mT)[None])
        return Inverse(gram, residual, float(products.trace()))

    def triangle(self, matrix: Tensor) -> Triangle | None:
        """QR of the long side and singular values of R, by a driver that is not approximate."""
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
        try:
            triangle = torch.linalg.qr(tall, mode="r").R
            values = torch.linalg.svdvals(triangle, driver="gesvd" if self._is_gpu else None)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
        return Triangle(
            values.cpu().numpy(), triangle.diagonal().cpu().numpy(), float((tall * tall).sum())
        )


def has_gpu() -> bool:
    """Whether torch finds a CUDA device."""
    return torch.cuda.is_available()
