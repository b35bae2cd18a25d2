"""Intruder dimensions: leading directions of a fine-tuned weight that it did not have before."""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.diagnostics.evidence import Evidence, needs_subspaces
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

# Of the top 10 left singular vectors. Intruders are defined for small changes of a trained model;
# where chance alone would give half a vector or more, the change is large and they mean nothing, as
# in any training from scratch.
FEWEST, BY_CHANCE = 1.0, 0.5
SHARE = 0.5  # of the matrices

INTRUDERS = Kind(
    "intruder-dimensions",
    "warning",
    "The change is small, yet leading directions of these weights are new; a full-rank change of "
    "this size would preserve them. Such models were found to forget more (Shuttleworth et al. "
    "2024).",
    "Lower the learning rate or alpha, raise the rank, or use a rank-stabilised scale; check what "
    "the model forgets.",
)


def check_intruders(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the weights at the last step with the first, if the results have that."""
    table = evidence.subspaces
    if table is None:
        if any(moment.contents.adapted for moment in evidence.moments):
            yield needs_subspaces(evidence, INTRUDERS.code)
        return
    rows = table[
        (table["measure"] == "intruders")
        & (table["component"] == "weight")
        & (table["status"] == "ok")
    ]
    rows = rows[rows["against"] == rows["against"].min()]
    rows = rows[rows["step"] == rows["step"].max()]
    if rows.empty:
        return
    certain = (rows["value"] - rows["error"].fillna(0) >= FEWEST) & (rows["null"] < BY_CHANCE)
    found = rows[certain]
    if len(found) >= SHARE * len(rows):
        value, null = float(found["value"].median()), float(found["null"].median())
        text = (
            f"{value:.0f} of the 10 leading directions are new since {evidence.run.unit} "
            f"{int(found['against'].iloc[0])} in {len(found)} of {len(rows)} matrices (median; "
            f"chance: {null:.1f})"
        )
        place = evidence.place.of(map(int, found["step"]), found["name"])
        yield INTRUDERS.at(place, text, {"intruders": value, "chance": null})
