"""Decomposing recipes one after the other: on this processor, or on a device of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from rankscope.analysis.jobs import Outcome
from rankscope.analysis.plan import SpectraTask
from rankscope.analysis.worker import decompose
from rankscope.components.component import Component
from rankscope.pipeline.engine import Job

Decompose: TypeAlias = Callable[[Sequence[Component]], Iterator[tuple[Component, Outcome]]]


@contextmanager
def decompose_with(device: str | None) -> Iterator[Decompose]:
    """Yield what decomposes components, in any order: within the block, in this process.

    Parameters
    ----------
    device
        A torch device; None for the processor.
    """
    if device is None:
        yield lambda components: (
            (one, decompose(one.recipe, component=one.kind)) for one in components
        )
        return
    from rankscope.analysis.device_worker import DeviceWorker

    with DeviceWorker(device, jobs=1) as worker:

        def on_device(components: Sequence[Component]) -> Iterator[tuple[Component, Outcome]]:
            for job, outcome in worker.run(Job(0, SpectraTask(one, "")) for one in components):
                yield job.task.component, outcome

        yield on_device
