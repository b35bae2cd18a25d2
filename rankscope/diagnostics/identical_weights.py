"""Steps with identical weights."""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.checkpoints.same_weights import identical_steps
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

IDENTICAL = Kind(
    "identical-weights",
    "warning",
    "A wrong upload, a step that was saved twice, or a training that did not move. The update "
    "between these steps is zero, and the next one is the sum of all the updates it replaces.",
    "Replace the wrong checkpoint, or exclude its step from the analysis (`steps`).",
)


def check_identical(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Name the steps whose weights are the same."""
    for same in identical_steps(evidence.run):
        text = f"{len(same)} checkpoints agree in names, shapes and all elements that were compared"
        yield IDENTICAL.at(evidence.place.of(same), text, {"checkpoints": len(same)})
