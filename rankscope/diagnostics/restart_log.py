"""What the log says about restarts: the loss before and after, and restarts without a record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

# Relative change of the loss over a merge that preserves the function. Float32 leaves about 1e-8 of
# it, merging in bfloat16 up to 1e-3 (measured with merges of 0.1 to 1 of the weight's norm).
CHANGE = 0.003

LOSS = Kind(
    "restart-changed-loss",
    "error",
    "The loss on one batch differs before and after the restart, so the restart changed what the "
    "model computes.",
    "See merge-changed-function for what was merged; a correct restart leaves the loss as it was.",
)
UNRECORDED = Kind(
    "merge-not-recorded",
    "warning",
    "These restarts have no recorded merge, so sums of merges lack them, and windows around them "
    "count as parts of one cycle.",
    "Restore the folder `merges` of the run from a copy.",
)


def check_restart_log(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare what the log says about each restart with what a restart should be."""
    restarts = [one for one in evidence.log if one.get("event") == "restart"]
    changed = {one["step"]: change for one in restarts if (change := _change(one)) > CHANGE}
    if changed:
        step, most = max(changed.items(), key=lambda item: item[1])
        text = (
            f"the loss changed at {len(changed)} of {len(restarts)} restarts, most at step {step}: "
            f"by {most:.1%}"
        )
        yield LOSS.at(evidence.place.of(changed), text, {"largest_change": most})
    lost = {one["step"] for one in restarts} - set(evidence.merges.steps)
    # A run that is training has logged a restart whose step has no checkpoint yet.
    lost = {step for step in lost if step <= max(evidence.run.steps, default=0)}
    if lost:
        text = f"{len(lost)} of {len(restarts)} restarts in the log are not among the merges"
        yield UNRECORDED.at(evidence.place.of(lost), text, {"restarts": len(restarts)})


def _change(record: dict[str, Any]) -> float:
    before, after = record.get("loss_before"), record.get("loss_after")
    if not isinstance(before, float) or not isinstance(after, float) or not before:
        return 0.0
    return abs(after - before) / abs(before) if math.isfinite(after - before) else math.inf
