"""Several processes that train one model, each on its share of every batch.

Every process holds the whole model and takes the same steps; what they exchange are gradients,
once a step, and a few numbers. `DistributedDataParallel` is left out on purpose: it remembers the
parameters it was given, and adapters of another rank are other parameters.

Everything here is collective: all processes must make the same calls in the same order.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rankscope.errors import RankscopeError, printable

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
BUCKET = 1 << 25  # numbers averaged at once, 128 MiB of float32

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One process among those that train together; see `joined`.

    A process on its own may call everything here as well: nothing is exchanged, and
    ``torch.distributed`` is not touched.
    """

    rank: int  # from 0
    size: int  # how many there are
    device: torch.device  # of this process; what is exchanged lives there

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: Tensor, micro: int) -> tuple[Tensor, ...]:
        """Return this process's part of a batch, as micro-batches; views, not copies.

        Parameters
        ----------
        batch
            All sequences of a step, (b, t + 1), the same in every process. Process k has the k-th
            of ``size`` equal runs of them; see `check_shares`.
        micro
            Sequences of a micro-batch; 0: all of the part at once.
        """
        part = len(batch) // self.size
        own = batch[self.rank * part : (self.rank + 1) * part]
        return torch.split(own, micro or part)

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, bit for bit the same in each.

        Parts are of equal size, so the mean of their mean losses' gradients is the gradient of the
        whole batch's mean loss. A NaN or infinity of one process is one of all.

        Parameters
        ----------
        parameters
            In the same order everywhere, each with a gradient.

        Raises
        ------
        ValueError
            If one has no gradient. Taking that as zero would hide a parameter that is left out.
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
        """Return the first process's value, which must be small and can be pickled."""
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
            In all of them, what ``work`` raised in the first: they end together, for one reason.
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
            Of any type, on any device. Only their hashes are exchanged.
        what
            What they are and when, for the message, as ``"the parameters of step 100"``.

        Raises
        ------
        RankscopeError
            In all processes, about the first tensor that differs.
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
                        "all: they no longer train one model. Go on with --resume from what was "
                        "saved before",
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
        """Turn what the library says of a peer that has ended or hangs into one line."""
        try:
            yield
        except RuntimeError as error:
            raise RankscopeError(
                f"process {self.rank} of {self.size} ends, because another one has ended or does "
                f"not answer ({_first_line(error)}). See what that one said; go on with --resume "
                "from what was saved",
                reason="lost",
            ) from None


@contextmanager
def joined(device: str, *, timeout: timedelta = timedelta(minutes=30)) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without it, be the only one.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``; of several GPUs the one of ``LOCAL_RANK``.
    timeout
        How long to wait for another process before giving it up. One that has ended is noticed at
        once on the CPU; between GPUs it is ``torchrun`` that ends the others.

    Raises
    ------
    RankscopeError
        If the environment is incomplete, a GPU is missing, or not all processes come.
    """
    processes = _from_environment(device)
    if processes.size == 1:
        yield processes
        return
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)  # where nccl puts what it pickles
    try:
        dist.init_process_group(
            BACKENDS[device], rank=processes.rank, world_size=processes.size, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        raise RankscopeError(
            f"process {processes.rank} of {processes.size} could not join the others "
            f"({_first_line(error)}): start all of them with torchrun",
            reason="lost",
        ) from None
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def check_shares(sequences: int, micro: int, size: int) -> None:
    """Make sure that a batch can be shared.

    Parameters
    ----------
    sequences
        Those of a whole step, ``batch.sequences``.
    micro
        ``batch.micro_sequences``; 0: each process takes its part at once.
    size
        Number of processes.

    Raises
    ------
    RankscopeError
        If the parts of the processes, or the micro-batches of a part, were not of equal size.
        Their mean would then not be the mean of the batch.
    """
    if sequences % (size * (micro or 1)) == 0:
        return
    parts = f"{size} processes" if size > 1 else "one process"
    unit = f"{size} x batch.micro_sequences = {size * micro}" if micro else str(size)
    raise RankscopeError(
        f"batch.sequences = {sequences} cannot be shared evenly among {parts}: it must be a "
        f"multiple of {unit}"
    )


def _from_environment(device: str) -> Processes:
    """Read what ``torchrun`` says of this process."""
    size = _number("WORLD_SIZE", 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        return Processes(0, 1, torch.device(device))
    rank = _number("RANK", 0)
    if rank >= size:
        raise RankscopeError(f"RANK = {rank} in the environment must be below WORLD_SIZE = {size}")
    if device == "cpu":
        return Processes(rank, size, torch.device("cpu"))
    local_rank, gpus = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if local_rank >= gpus:
        raise RankscopeError(
            f"device = {device!r} needs a GPU for every process, but torch finds {gpus} for "
            f"LOCAL_RANK = {local_rank}: start at most as many as there are with torchrun"
        )
    return Processes(rank, size, torch.device(device, local_rank))


def _number(variable: str, smallest: int) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal() or int(text) < smallest:
        raise RankscopeError(
            f"{variable} = {text!r} in the environment must be a whole number of at least "
            f"{smallest}: start several processes with torchrun, or one without WORLD_SIZE"
        )
    return int(text)


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"a parameter of shape {tuple(parameter.shape)} has no gradient")
    return parameter.grad


def _iter_buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of at most `BUCKET` numbers together; a larger tensor has one of its own."""
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


def _first_line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0], limit=160)
