"""Joining the processes that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from rankscope.errors import RankscopeError, WrongSettingError, first_line
from rankscope.training.processes import Processes

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@contextmanager
def joined(device: str, *, timeout: timedelta = timedelta(minutes=30)) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; without it, be the only one.

    Parameters
    ----------
    device
        ``"cpu"`` or ``"cuda"``; of several GPUs the one of ``LOCAL_RANK``.
    timeout
        How long to wait for another process before giving it up. On the CPU a process that has
        ended is noticed at once; between GPUs ``torchrun`` ends the others.

    Raises
    ------
    RankscopeError
        If the environment is incomplete, a GPU is missing, or not all processes join.
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
            f"({first_line(error)}): start all of them with torchrun",
            reason="lost",
        ) from None
    try:
        yield processes
    finally:
        dist.destroy_process_group()


def check_shares(sequences: int, micro: int, size: int) -> None:
    """Make sure that the processes can share a batch evenly.

    Parameters
    ----------
    sequences
        Sequences of a whole step, ``batch.sequences``.
    micro
        ``batch.micro_sequences``; 0: each process takes its part in one forward pass.
    size
        Number of processes.

    Raises
    ------
    WrongSettingError
        If the parts of the processes, or the micro-batches of a part, would differ in size: their
        mean would not be the mean of the batch.
    """
    if sequences % (size * (micro or 1)) == 0:
        return
    parts = f"{size} processes" if size > 1 else "one process"
    unit = f"{size} x batch.micro_sequences = {size * micro}" if micro else str(size)
    raise WrongSettingError(
        f"batch.sequences = {sequences} cannot be shared evenly among {parts}: it must be a "
        f"multiple of {unit}"
    )


def _from_environment(device: str) -> Processes:
    """Read what ``torchrun`` says about this process."""
    size = _number("WORLD_SIZE", 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        return Processes(0, 1, torch.device(device))
    rank = _number("RANK", 0)
    if rank >= size:
        raise WrongSettingError(
            f"RANK = {rank} in the environment must be below WORLD_SIZE = {size}"
        )
    if device == "cpu":
        return Processes(rank, size, torch.device("cpu"))
    local_rank, gpus = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if local_rank >= gpus:
        raise WrongSettingError(
            f"device = {device!r} needs a GPU for every process, but torch finds {gpus} for "
            f"LOCAL_RANK = {local_rank}: start at most one process per GPU with torchrun"
        )
    return Processes(rank, size, torch.device(device, local_rank))


def _number(variable: str, smallest: int) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal() or int(text) < smallest:
        raise WrongSettingError(
            f"{variable} = {text!r} in the environment must be a whole number of at least "
            f"{smallest}: start several processes with torchrun, or one without WORLD_SIZE"
        )
    return int(text)
