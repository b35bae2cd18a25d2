"""Steps of another run in the series: other names or logs, or weights that jump."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np

from rankscope.diagnostics.evidence import Evidence, Moment
from rankscope.diagnostics.finding import Finding, Kind, Unchecked
from rankscope.diagnostics.restarts import has_restart

# Cosine of the weights with those before. Two trainings have about 0 (their initial weights are
# unrelated); calm neighbours show that this training does not move so far in such a time. Early
# windows, in which weights may turn, have no calm window before them.
JUMP, CALM = 0.5, 0.9
LONGER = 2  # a window may be longer than its neighbours by this factor
COMPARED = 2**12  # elements of each matrix

BREAK = Kind(
    "other-run",
    "error",
    "This step does not continue the training of the steps before. The difference of two trainings"
    " is not an update, so none is measured across this point.",
    "Put the steps of each training into its own folder.",
)
JUMPED = Kind(
    "weights-jump",
    "warning",
    "These weights are unrelated to those before: they probably belong to another training, or "
    "were initialised anew. The update is then a difference of two models.",
    "Compare the file with its source. If it belongs to another run, move it; otherwise analyse "
    "both parts separately (`steps`).",
)


def check_other_runs(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Name the steps that do not continue those before."""
    for step in evidence.steps:
        for skip in step.skips:
            if skip.reason == "break":
                yield BREAK.at(evidence.place.of([step.step]), skip.message)
    yield from _jumps(evidence)


def _jumps(evidence: Evidence) -> Iterator[Finding]:
    # A merge may turn a weight; whether it did what it should is for other findings.
    turned = [
        (one, other, 1.0 if has_restart(evidence, one, other) else _cosine(evidence, one, other))
        for one, other in evidence.pairs
    ]
    for index, (before, now, cosine) in enumerate(turned):
        around = [turned[i] for i in (index - 1, index + 1) if 0 <= i < len(turned)]
        if index == 0 or cosine is None or cosine >= JUMP:
            continue
        longest = max(other.step - one.step for one, other, _ in around)
        calm = min(-1.0 if c is None else c for _, _, c in around)
        if calm >= CALM and now.step - before.step <= LONGER * longest:
            text = (
                f"the cosine of the weights with those of {evidence.run.unit} {before.step} is "
                f"{cosine:.2f} (median over matrices); in the intervals around it, {calm:.2f} or "
                "more"
            )
            place = evidence.place.of([now.step])
            yield JUMPED.at(place, text, {"cosine": cosine, "around": calm})


def _cosine(evidence: Evidence, before: Moment, now: Moment) -> float | None:
    """Median cosine of the weights in both checkpoints, of some elements of each."""
    cosines = []
    for name, later in now.contents.parameters.items():
        earlier = before.contents.parameters.get(name)
        if earlier is None or earlier.tensor is None or later.tensor is None:
            continue
        if earlier.shape != later.shape:
            continue
        one = evidence.sampled(earlier.tensor, before.step, most=COMPARED).astype(np.float64)
        other = evidence.sampled(later.tensor, now.step, most=COMPARED).astype(np.float64)
        if one.size == other.size and one.size:
            with np.errstate(all="ignore"):
                cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
            if np.isfinite(cosine):
                cosines.append(float(cosine))
    return median(cosines) if cosines else None
