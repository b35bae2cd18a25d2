"""Tensors that hold NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rankscope.checkpoints.tensors import Tensor
from rankscope.diagnostics.evidence import Evidence, Moment, grouped
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

NONFINITE = Kind(
    "non-finite",
    "error",
    "These matrices contain NaN or infinity. They have no spectrum, and the model's output is "
    "meaningless.",
    "Resume from the last healthy step, with a lower learning rate or clipped gradients; exclude "
    "these steps from the analysis (`steps`).",
)


def check_finite(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Look for NaN and infinity, in samples of all tensors and in the results."""
    found: dict[str, set[int]] = {}
    for moment in evidence.moments:
        for name, tensor in _tensors(moment):
            sample = evidence.sampled(tensor, moment.step)
            if not np.isfinite(sample).all():
                found.setdefault(name, set()).add(moment.step)
    if evidence.metrics is not None:
        rows = evidence.metrics[evidence.metrics["status"] == "nonfinite"]
        own = rows[rows["component"].isin(("weight", "base", "adapter", "factor", "merge"))]
        for name, step in zip(own["name"], own["step"], strict=True):
            found.setdefault(str(name), set()).add(int(step))
    for steps, names in grouped({name: sorted(at) for name, at in found.items()}):
        text = f"{len(names)} matrices hold numbers that are not finite"
        yield NONFINITE.at(evidence.place.of(steps, names), text, {"matrices": len(names)})


def _tensors(moment: Moment) -> Iterator[tuple[str, Tensor]]:
    for parameter in moment.contents.parameters.values():
        adapter = parameter.adapter
        parts = (*filter(None, (parameter.tensor,)), *(adapter.tensors if adapter else ()))
        yield from ((parameter.name, part) for part in parts)
