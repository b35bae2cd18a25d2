"""How a ReLoRA cycle begins: the A of each new adapter, the warm-up, and who is notified."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from rankscope.errors import WrongSettingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def a_generator(seed: int, *, cycle: int, name: str) -> torch.Generator:
    """Generator for the A of a module in a cycle, which depends on nothing else."""
    from rankscope.keyed import keyed_generator

    return keyed_generator(seed, "lora_A", cycle, name)


def random_a(columns: int, rank: int, *, generator: torch.Generator) -> Tensor:
    """An A of independent entries, (rank, columns), float32, on the CPU.

    They are from U(-1/√columns, 1/√columns), as PyTorch initialises a linear layer.
    """
    import torch

    bound = 1 / math.sqrt(columns)
    draw = torch.empty(rank, columns, dtype=torch.float32)
    return draw.uniform_(-bound, bound, generator=generator)


def ramp(step: int, length: int) -> float:
    """Share of the learning rate in a linear warm-up, at its ``step``-th update, from 1 on."""
    return min(1.0, step / length) if length else 1.0


def restart_warmup(
    every: int, length: int, *, times: Callable[[int], float] | None = None
) -> Callable[[int], float]:
    """Learning rate as a function of the update, warmed up after every restart, for a ``LambdaLR``.

    Before the first restart it is 1. At the n-th update after a restart it is n / length, at most
    1.

    Parameters
    ----------
    every
        Updates between restarts; the first is before update ``every``, counted from 0.
    length
        Updates of each warm-up; 0 for none.
    times
        A multiplier of your own, such as a warm-up at the start and a decay; 1 by default.

    Returns
    -------
    A function from the number of the update, counted from 0, to a multiplier of the learning rate.

    Examples
    --------
    >>> from rankscope import relora
    >>> warmup = relora.restart_warmup(every=100, length=4)
    >>> [warmup(update) for update in (0, 99, 100, 101, 103, 104)]
    [1.0, 1.0, 0.25, 0.5, 1.0, 1.0]
    """
    if every < 1 or length < 0:
        message = f"`every` is {every} and `length` {length}: give at least 1 and 0"
        raise WrongSettingError(message)

    def multiplier(update: int) -> float:
        warm = ramp(update % every + 1, length) if update >= every else 1.0
        return warm if times is None else warm * times(update)

    return multiplier


class Listener(Protocol):
    """What wants to know of restarts in a model, such as a monitor."""

    @property
    def model(self) -> nn.Module:
        """The model."""

    def hear_restart(self, step: int | None) -> None:
        """Adapters were merged in float64 and restarted; ``step`` is None if it is not certain."""


_listeners: WeakSet[Listener] = WeakSet()  # of this process, as long as somebody else holds them


def listen(listener: Listener) -> None:
    """Let a listener hear of restarts in its model."""
    _listeners.add(listener)


def stop_listening(listener: Listener) -> None:
    """Let it hear of none any more."""
    _listeners.discard(listener)


def announce_restart(layers: Collection[nn.Module], step: int | None) -> None:
    """Notify the listeners of a model with any of these layers that its adapters were restarted."""
    restarted = {id(layer) for layer in layers}
    for listener in tuple(_listeners):
        if any(id(module) in restarted for module in listener.model.modules()):
            listener.hear_restart(step)
