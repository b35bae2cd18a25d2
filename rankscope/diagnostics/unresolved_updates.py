"""Updates below the noise floor: their spectra are those of rounding."""

from __future__ import annotations

from collections.abc import Iterator

from rankscope.diagnostics.evidence import Evidence, needs_spectra, rows_of
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

UNRESOLVED = Kind(
    "update-below-noise",
    "warning",
    "Rounding to the storage format could account for all of this change, so rank and PER of these"
    " updates describe noise.",
    "Save checkpoints in float32, or measure over longer windows (`steps`): updates grow and "
    "rounding does not.",
)


def check_resolved(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Look for updates without a single singular value above the noise floor."""
    rows = rows_of(evidence, "update")
    if rows is None:
        yield needs_spectra(evidence, UNRESOLVED.code)
        return
    # Numbers that are not known of all rows, as of an adapter without its scale, are no evidence.
    below = rows[(rows["numerical_rank"] == 0) & (rows["signal_to_noise"] < 1)]
    if below.empty:
        return
    dtype, ratio = below["dtype"].mode()[0], float(below["signal_to_noise"].median())
    text = (
        f"{len(below)} of {len(rows)} updates have no singular value above the noise floor of "
        f"{dtype} storage; the largest has {ratio:.2g} of it (median)"
    )
    place = evidence.place.of(map(int, below["step"]), below["name"])
    yield UNRESOLVED.at(place, text, {"updates": len(below), "signal_to_noise": ratio})
