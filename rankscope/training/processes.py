"""Several processes that train one model, each on its share of every batch.

Every process holds the whole model and takes the same steps; they exchange gradients, once per
step, and a few numbers. `DistributedDataParallel` is not used on purpose: it remembers the
parameters it was given, and adapters of another rank are other parameters.

Everything here is collective: all processes must make the same calls in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rankscope.errors import RankscopeError, first_line

BUCKET = 1 << 25  # numbers averaged at once, 128 MiB of float32

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together; see `launch.joined`.

    A process that trains alone may call everything here too: nothing is exchanged, and
    ``torch.distributed`` is not touched.
    """

    rank: int  # from 0
    size: int  # how many there are
    device: torch.device  # of this process; holds what is exchanged

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: Tensor, micro: int) -> tuple[Tensor, ...]:
        """Return this process's part of a batch, as micro-batches; views, not copies.

        Parameters
        ----------
        batch
            All sequences of a step, (b, t + 1), the same in every process. Process k takes the
            k-th of ``size`` equal parts; see `launch.check_shares`.
        micro
            Sequences of a micro-batch; 0: the whole part at once.
        """
        part = len(batch) // self.size
        own = batch[self.rank * part : (self.rank + 1) * part]
        return torch.split(own, micro or part)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, bit for bit the same in each.

        Parts are of equal size, so the mean of their gradients is the gradient of the mean loss of
        the whole batch. A NaN or infinity in one process becomes one in all.

        Parameters
        ----------
        parameters
            In the same order everywhere, each with a gradient.

        Raises
        ------
        ValueError
            If a parameter has no gradient. Zero would hide that it was left out.
        """
        if self.size == 1:
            return
        for bucket in _iter_buckets(map(_gradient, parameters)):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            with self._answering():
                dist.all_reduce(flat)
            flat /= self.size
            sizes = [gradient.numel() for gradient in bucket]
            for gradient, mean in zip(bucket, torch.split(flat, sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one process or more, so that all can do the same."""
        return self._reduced(float(flag), dist.ReduceOp.MAX) > 0

    def sum(self, x: float) -> float:
        """Sum of a number over the processes, in float64; the same in each."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def mean(self, x: float) -> float:
        """Mean of a number over the processes, in float64; the same in each."""
        return self.sum(x) / self.size

    def agreed(self, value: T) -> T:
        """Return the first process's value, which must be small and picklable."""
        if self.size == 1:
            return value
        values = [value]
        with self._answering():
            dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def result_of_first(self, work: Callable[[], T]) -> T:
        """Let the first process alone do something, and return its result in all of them.

        Raises
        ------
        RankscopeError, OSError
            In all processes what ``work`` raised in the first, so that they end together.
        """
        if self.size == 1:
            return work()
        result, error = self.agreed(_attempt(work) if self.is_first else (None, None))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error it is a T

    def require_equal(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Make sure that tensors are the same in every process: names, shapes and every bit.

        Parameters
        ----------
        tensors
            Of any dtype, on any device. Only their hashes are exchanged.
        what
            What they are, for the message, such as ``"the parameters of step 100"``.

        Raises
        ------
        RankscopeError
            In all processes, naming the first tensor that differs.
        """
        if self.size == 1:
            return
        digests: list[dict[str, str]] = [{}] * self.size
        with self._answering():
            dist.all_gather_object(digests, {name: _digest(t) for name, t in tensors.items()})
        for other, theirs in enumerate(digests):
            for name in digests[0] | theirs:
                if digests[0].get(name) != theirs.get(name):
                    raise RankscopeError(
                        f"differs between processes 0 and {other}, but {what} must be the same in "
                        "all: they no longer train one model. Start again with `resume`, from what "
                        "was saved before",
                        tensor=name,
                        reason="unequal",
                    )

    def _reduced(self, x: float, operation: dist.ReduceOp.RedOpType) -> float:
        if self.size == 1:
            return float(x)
        total = torch.tensor(x, dtype=torch.float64, device=self.device)
        with self._answering():
            dist.all_reduce(total, operation)
        return total.item()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn torch's error about a process that has ended or hangs into one line."""
        try:
            yield
        except RuntimeError as error:
            raise RankscopeError(
                f"process {self.rank} of {self.size} ends because another one has ended or does "
                f"not answer ({first_line(error)}). See its message, then start again with "
                "`resume`, from what was saved",
                reason="lost",
            ) from None


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"a parameter of shape {tuple(parameter.shape)} has no gradient")
    return parameter.grad


def _iter_buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group neighbours of at most `BUCKET` numbers; a larger tensor is a group by itself."""
    bucket: list[Tensor] = []
    numbers = 0
    for tensor in tensors:
        if bucket and numbers + tensor.numel() > BUCKET:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(tensor)
        numbers += tensor.numel()
    if bucket:
        yield bucket


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except (RankscopeError, OSError) as error:
        return None, error


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{content.dtype} {tuple(content.shape)}".encode(), digest_size=16)
    digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
