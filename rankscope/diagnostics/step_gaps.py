"""Gaps in a regular series of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

REGULAR = 0.6  # share of the intervals that must be alike, so that the others are irregular
FEWEST = 4  # intervals

GAP = Kind(
    "steps-missing",
    "warning",
    "An update over a gap spans several intervals, and is larger than its neighbours for that "
    "reason alone.",
    "Restore the missing checkpoints, or compare only updates of equal length (column `since`).",
)


def check_gaps(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Look for missing steps in a series whose intervals are mostly alike."""
    steps = evidence.run.steps
    lengths = [later - earlier for earlier, later in pairwise(steps)]
    if len(lengths) < FEWEST:
        return
    usual, count = Counter(lengths).most_common(1)[0]
    if count < REGULAR * len(lengths):
        return
    missing = [
        step
        for earlier, later in pairwise(steps)
        if (later - earlier) % usual == 0
        for step in range(earlier + usual, later, usual)
    ]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        text = f"{len(missing)} steps are missing from every {usual}: {shown}"
        yield GAP.at(evidence.place.of(missing), text, {"missing": len(missing), "interval": usual})
