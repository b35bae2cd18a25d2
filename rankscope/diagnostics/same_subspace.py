"""Restarts that learn in the same subspace again, from the table of subspaces."""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.diagnostics.evidence import Evidence, needs_subspaces
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

# Excess of the overlap over chance, (overlap − null)/(1 − null), as the median over matrices. New
# random adapters had at most 0.01 in healthy runs (single matrices 0.07); adapters that survive
# their restarts have 0.9 and more.
EXCESS = 0.5

RELEARNED = Kind(
    "restart-same-subspace",
    "warning",
    "Successive cycles change the weights along the same directions, so these merges add little "
    "rank. ReLoRA gains rank only where each cycle learns new ones.",
    "Check that restarts draw a new A and reset the optimizer's state. If they do, shorten the "
    "cycles, or sample A from the directions of the gradient.",
)


def check_subspaces(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the row spaces of successive merges with chance."""
    if len(evidence.merges.steps) < 2:
        return
    table = evidence.subspaces
    if table is None:
        yield needs_subspaces(evidence, RELEARNED.code)
        return
    rows = table[
        (table["component"] == "merge")
        & (table["measure"] == "overlap")
        & (table["side"] == "right")
        & (table["status"] == "ok")
    ]
    # The merge just before, and subspaces of the size of the adapter.
    previous = dict(zip(evidence.merges.steps[1:], evidence.merges.steps[:-1], strict=True))
    rows = rows[rows["against"] == rows["step"].map(previous)]
    rows = rows[rows["k"] == rows.groupby(["step", "name"])["k"].transform("max")]
    excess = (rows["value"] - rows["null"]) / (1 - rows["null"])
    by_step = excess.groupby(rows["step"]).median()
    steps = [int(step) for step in by_step.index[by_step >= EXCESS]]
    if steps:
        found = rows[rows["step"].isin(steps)]
        names = list(dict.fromkeys(found["name"]))
        value, null = float(found["value"].median()), float(found["null"].median())
        text = (
            f"the directions of {len(steps)} of {len(by_step)} merges overlap with those of the "
            f"previous merge by {value:.2f} (median of {len(names)} matrices; by chance it is "
            f"{null:.2f}, and 1 if they are the same)"
        )
        yield RELEARNED.at(
            evidence.place.of(steps, names), text, {"overlap": value, "chance": null}
        )
