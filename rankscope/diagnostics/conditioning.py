"""Ill-conditioned updates of whole cycles: an adapter that uses few of its directions."""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.diagnostics.evidence import Evidence, needs_spectra, rows_of
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

# κ over rank of what a cycle merged, its median over the matrices of a merge. Of healthy runs the
# first cycle had at most 4 (single matrices 100), later ones 2. Only whole cycles count: a window
# within one has a second half of tiny singular values by construction, B₁A₁ − B₀A₀.
CONDITION = 100.0

ILL = Kind(
    "cycle-ill-conditioned",
    "warning",
    "What whole cycles added to the weights is dominated by a few directions: the rank of the "
    "adapter is not used.",
    "Lengthen the warm-up, lower the learning rate, or lower the rank.",
)


def check_conditioning(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Look for merges of which most are ill-conditioned."""
    rows = rows_of(evidence, "merge")
    if rows is None:
        if evidence.merges.steps:
            yield needs_spectra(evidence, ILL.code)
        return
    conditions = rows.groupby("step")["condition_number_r"].median()
    steps = [int(step) for step in conditions.index[conditions >= CONDITION]]
    if steps:
        found = rows[rows["step"].isin(steps)]
        condition = float(conditions[steps].median())
        used = float(found["rank_utilisation"].median())
        text = (
            f"κ over rank is {condition:.3g} (median over matrices) in {len(steps)} of "
            f"{len(conditions)} cycles; they use {used:.0%} of their rank"
        )
        place = evidence.place.of(steps, found["name"])
        yield ILL.at(place, text, {"condition_number_r": condition, "rank_utilisation": used})
