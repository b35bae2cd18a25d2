"""Linear algebra on a GPU, through torch in float64; tests run it on the processor."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rankscope.spectra.backends import Gram, Inverse, Triangle
from rankscope.spectra.bounds import Values

BATCH = 64
BATCH_BYTES = 2**30
SMALL = 32  # up to this size, every driver solves a batch of eigenproblems together


class TorchBackend:
    """A device of torch.

    Parameters
    ----------
    device
        ``cuda``, ``cuda:1``, or ``cpu``.

    Attributes
    ----------
    solves_batches
        Whether a batch of eigenproblems costs much less than the same problems in turn. Drivers up
        to 2026 solved batches of size 33 in turn, at a hundred times the cost of size 32.
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.solves_batches = self.device.type == "cuda" and self._probe()

    def batch_size(self, shape: tuple[int, int]) -> int:
        """How many matrices of this shape to give to `grams` at once."""
        if not self.solves_batches and min(shape) > SMALL:
            return 1
        one = max(8 * shape[0] * shape[1], 1)  # bytes
        return min(BATCH, max(1, BATCH_BYTES // one))

    def grams(self, matrices: Sequence[Values]) -> list[Gram]:
        """Gram matrices of float64 matrices of one shape, and their eigenvalues, as one batch."""
        stack = torch.stack([torch.from_numpy(np.ascontiguousarray(a)) for a in matrices])
        wide = stack.to(self.device)
        wide = wide if wide.shape[1] <= wide.shape[2] else wide.mT
        return self._described(wide @ wide.mT)

    def _described(self, gram: Tensor) -> list[Gram]:
        traces = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
        energies = (gram * gram).sum(dim=(1, 2))
        parts = zip(traces.tolist(), energies.tolist(), self._squares(gram, traces), strict=True)
        return [Gram(*one) for one in parts]

    def _squares(self, gram: Tensor, traces: Tensor) -> list[Values | None]:
        """Eigenvalues, descending; None for a matrix that is not finite or whose solver failed."""
        finite = torch.isfinite(traces)
        solved = iter(self._solved(gram[finite]))
        return [next(solved) if ok else None for ok in finite.tolist()]

    def _solved(self, gram: Tensor) -> list[Values | None]:
        try:
            return list(torch.linalg.eigvalsh(gram).flip(-1).cpu().numpy())
        except RuntimeError:  # of which torch's LinAlgError and OutOfMemoryError are kinds
            return [None] if len(gram) == 1 else [self._solved(one[None])[0] for one in gram]

    def inverse(self, matrix: Values) -> Inverse | None:
        """An inverse of the triangular factor, which is the Cholesky factor of the Gram matrix."""
        tall = torch.from_numpy(np.ascontiguousarray(matrix)).to(self.device)
        tall = tall if tall.shape[0] >= tall.shape[1] else tall.mT
        lower, failed = torch.linalg.cholesky_ex(tall.mT @ tall)
        if int(failed):
            return None
        one = torch.eye(len(lower), dtype=lower.dtype, device=self.device)
        inverse = torch.linalg.solve_triangular(lower, one, upper=False).mT
        near = tall @ inverse
        products = near.mT @ near
        residual = float(torch.linalg.matrix_norm(products - one))
        return Inverse(
            self._described((inverse @ inverse.mT)[None])[0], residual, float(products.trace())
        )

    def triangle(self, matrix: Values) -> Triangle | None:
        """QR of the long side and singular values of R, by a driver that is not approximate."""
        tall = torch.from_numpy(np.ascontiguousarray(matrix)).to(self.device)
        tall = tall if tall.shape[0] >= tall.shape[1] else tall.mT
        driver = "gesvd" if self.device.type == "cuda" else None
        try:
            triangle = torch.linalg.qr(tall, mode="r").R
            values = torch.linalg.svdvals(triangle, driver=driver)
        except RuntimeError:
            return None
        return Triangle(values.cpu().numpy(), triangle.diagonal().cpu().numpy())

    def _probe(self) -> bool:
        """Whether a batch of size 33 takes less than ten times one of size 32, after warming up."""
        seconds = {}
        for size in (SMALL, SMALL, SMALL + 1, SMALL + 1):
            batch = torch.eye(size, dtype=torch.float64, device=self.device).repeat(BATCH, 1, 1)
            begin = time.perf_counter()
            torch.linalg.eigvalsh(batch).cpu()
            seconds[size] = time.perf_counter() - begin
        return seconds[SMALL + 1] < 10 * seconds[SMALL]


def has_gpu() -> bool:
    """Whether torch finds a CUDA device."""
    return torch.cuda.is_available()
