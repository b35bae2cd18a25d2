"""Adapters that cannot learn: both factors zero, a dead scale, a zero gradient, no movement."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from rankscope.checkpoints.contents import Adapter, Parameter
from rankscope.checkpoints.tensors import Tensor
from rankscope.diagnostics.evidence import SAMPLE, Evidence, Moment, grouped
from rankscope.diagnostics.finding import Finding, Kind, Unchecked
from rankscope.diagnostics.restarts import has_restart

DEAD = Kind(
    "adapter-dead",
    "error",
    "The gradient of B is proportional to A and that of A to B, so both stay zero whatever the "
    "optimizer does: these weights learn nothing.",
    "Start each cycle with A random and B = 0: B·A is then zero too, but B has a gradient.",
)
SCALE = Kind(
    "adapter-scale-dead",
    "error",
    "The scale multiplies the adapter's output and all its gradients, so the adapter adds nothing "
    "and learns nothing.",
    "Use a scale of alpha/r or alpha/√r. Do not reset a trained scale to zero together with B.",
)
STUCK = Kind(
    "adapter-does-not-move",
    "error",
    "There is no restart between these checkpoints, and other weights moved, so these adapters are"
    " not being trained.",
    "Check that they require gradients, that the optimizer holds these very tensors and not "
    "earlier ones, and that their learning rate is not zero.",
)
GRADIENT = Kind(
    "gradient-zero",
    "error",
    "Neither these weights nor adapters on them learn: a factor of zero before or after them, a "
    "mask or a detached tensor cuts them off from the loss.",
    "Look for the cause between these weights and the loss; a gated block with one zero weight is "
    "enough.",
)


def check_adapters(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Look for adapters that cannot learn or do not."""
    dead: dict[str, list[int]] = {}
    scales: dict[str, list[int]] = {}
    for moment in evidence.moments:
        for parameter in _adapted(moment):
            adapter = parameter.adapter
            assert isinstance(adapter, Adapter)
            if adapter.scale is not None and (
                not adapter.scale or not math.isfinite(adapter.scale)
            ):
                scales.setdefault(parameter.name, []).append(moment.step)
            if all(is_zero(evidence, factor, moment.step) for factor in adapter.tensors):
                dead.setdefault(parameter.name, []).append(moment.step)
    for steps, names in grouped(dead):
        text = f"A = 0 and B = 0 in {len(names)} adapters"
        yield DEAD.at(evidence.place.of(steps, names), text, {"adapters": len(names)})
    for steps, names in grouped(scales):
        found = evidence.run[steps[0]].contents.parameters[names[0]].adapter
        scale = None if found is None else found.scale
        text = f"the scale of {len(names)} adapters is {scale}"
        yield SCALE.at(evidence.place.of(steps, names), text, {"adapters": len(names)})
    yield from _stuck(evidence, dead)
    yield from _without_gradient(evidence)


def _adapted(moment: Moment) -> Iterator[Parameter]:
    parameters = moment.contents.parameters.values()
    yield from (one for one in parameters if isinstance(one.adapter, Adapter))


def _stuck(evidence: Evidence, dead: dict[str, list[int]]) -> Iterator[Finding]:
    """Adapters that stay as they are while something else in the checkpoint moves."""
    found: dict[str, list[int]] = {}
    for before, now in evidence.pairs:
        if has_restart(evidence, before, now):
            continue
        moved = {name: _moved(evidence, before, now, name) for name in now.contents.parameters}
        if any(moved.values()):
            for parameter in _adapted(now):
                name = parameter.name
                if moved[name] is False and name not in dead:
                    found.setdefault(name, []).extend((before.step, now.step))
    for steps, names in grouped(found):
        text = f"{len(names)} adapters are the same to the last bit at {len(steps)} checkpoints"
        yield STUCK.at(evidence.place.of(steps, names), text, {"adapters": len(names)})


def _moved(evidence: Evidence, before: Moment, now: Moment, name: str) -> bool | None:
    """Whether what is trained of a weight changed, its adapter or itself; None if unknown."""
    later, earlier = now.contents.parameters[name], before.contents.parameters.get(name)
    if earlier is None or type(later.adapter) is not type(earlier.adapter):
        return None
    if later.adapter is not None and earlier.adapter is not None:
        pairs = zip(later.adapter.tensors, earlier.adapter.tensors, strict=False)
    else:
        pairs = zip(filter(None, (later.tensor,)), filter(None, (earlier.tensor,)), strict=False)
    return not all(_same(evidence, *pair, (now.step, before.step)) for pair in pairs)


def _without_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Weights whose stored gradient is zero; of experts that a batch does not reach, none."""
    found: dict[str, list[int]] = {}
    seen: set[int] = set()
    for moment in evidence.moments:
        for name, gradient in moment.contents.gradients.items():
            seen.add(moment.step)
            tensor = None if gradient.expert is not None else gradient.tensor
            if tensor is not None and is_zero(evidence, tensor, moment.step):
                found.setdefault(name, []).append(moment.step)
    for steps, names in grouped(found):
        text = f"{len(names)} gradients are zero at {len(steps)} of {len(seen)} checkpoints"
        yield GRADIENT.at(
            evidence.place.of(steps, names),
            text,
            {"matrices": len(names), "checkpoints": len(seen)},
            severity=None if len(steps) == len(seen) else "warning",
        )


def is_zero(evidence: Evidence, tensor: Tensor, step: int) -> bool:
    """Whether every element is zero; all of them are read only if a sample is."""
    sample = evidence.sampled(tensor, step)
    if not sample.size or sample.any():
        return False
    whole = evidence.read(tensor.read, tensor, step)
    return bool(whole.size) and not whole.any()


def _same(evidence: Evidence, one: Tensor, other: Tensor, steps: tuple[int, int]) -> bool:
    """Whether two tensors are equal; all of their elements are read only if a sample is."""
    if one.shape != other.shape:
        return False
    samples = evidence.sampled(one, steps[0]), evidence.sampled(other, steps[1])
    if not samples[0].size or not np.array_equal(*samples):
        return False
    if samples[0].size < SAMPLE:
        return True
    wholes = evidence.read(one.read, one, steps[0]), evidence.read(other.read, other, steps[1])
    return np.array_equal(*wholes)
