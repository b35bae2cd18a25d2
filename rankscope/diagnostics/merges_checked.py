"""Merges that change the function: W after − W before is not scale·B·A."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Number, Severity, Unchecked
from rankscope.diagnostics.merged_share import MergedShare, iter_shares
from rankscope.diagnostics.restarts import Restart, iter_restarts

# The share of a merge is certain to within its bound, which rounding alone cannot leave; the rest
# is room for what a trainer may round besides, such as factors kept in 16 bits.
TOLERANCE = 0.02
# Change in other directions, over the merge itself: a merge in a format that keeps 99 % of it
# leaves less than 0.1. Where only a counter tells of a restart, the adapter may have learned more
# before the merge; then nothing is said.
REST = 0.1
# Norm of what rounding took from a merge, over that of the merge. Float32 leaves about 1e-6.
LOST, MOSTLY_LOST = 0.1, 0.5
UNCLEAR = 0.5  # where rounding may be this much of a merge, its factor is not known

CHANGED = Kind(
    "merge-changed-function",
    "error",
    "A restart must move scale·B·A into the weight and change nothing else. Here it did not, so "
    "the loss jumps, and part of what was learned is lost or counted twice.",
    "Merge with the scale of the forward pass, W ← W + scale·B·A, and compare the loss before and "
    "after. Do not read this run's ranks as those of ReLoRA.",
)
NOTHING = Kind(
    "restart-merged-nothing",
    "error",
    "The adapters restarted, but the frozen weights did not change: what the adapters had learned "
    "was thrown away.",
    "Merge before the adapters are reset, and into the weights that the model uses, not into a "
    "copy that the optimizer or the sharding overwrites.",
)
OTHERWISE = Kind(
    "merge-of-something-else",
    "error",
    "The frozen weights changed by something other than the recorded merge, so the sum of the "
    "recorded merges is not what this training added.",
    "Check that weights and merges belong to the same run and that nothing else trains the frozen "
    "weights; use `update`, measured from the weights, instead of `merged_total`.",
)
ROUNDED = Kind(
    "merge-lost-to-rounding",
    "warning",
    "The format of the frozen weights is too coarse for these merges: small changes are lost and "
    "the others are rounded. The change of the weights then looks full-rank, but that is rounding.",
    "Keep the frozen weights in float32, or merge less often, in larger steps.",
)


def check_merges(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare each merge with the change of the weights."""
    found: dict[tuple[Kind, str], list[tuple[Restart, MergedShare]]] = {}
    for restart in iter_restarts(evidence):
        for share in iter_shares(evidence, restart):
            judged = _judged(restart, share)
            if judged is not None:
                found.setdefault(judged, []).append((restart, share))
    for (kind, why), shares in found.items():
        yield _finding(evidence, kind, why, shares)


def _judged(restart: Restart, share: MergedShare) -> tuple[Kind, str] | None:
    """What is wrong with the merge of a matrix, and what explains its factor; None if nothing is.

    Where there is no record, what was merged is known only if the weight changed along it.
    """
    is_recorded = restart.source == "record"
    is_clear = share.bound < UNCLEAR
    if is_clear and share.unmoved == 1:
        return NOTHING, ""
    if not is_recorded and (restart.count > 1 or share.rest > REST + share.bound):
        return None
    if not is_clear or abs(share.share - 1) <= share.bound + TOLERANCE:
        return (ROUNDED, "") if share.lost > LOST else None
    if share.rest > REST + share.bound:
        return OTHERWISE, ""
    return CHANGED, factor_in_words(share.share, share.scale, share.bound + TOLERANCE)


def factor_in_words(share: float, scale: float, tolerance: float) -> str:
    """What explains a factor of a merge, if anything simple does.

    Examples
    --------
    >>> from rankscope.diagnostics.merges_checked import factor_in_words
    >>> factor_in_words(0.5, 2.0, 0.02)
    'the merge left out the scale, 2'
    >>> factor_in_words(0.7, 2.0, 0.02)
    ''
    """
    explanations = (
        (1 / scale if scale else 0.0, f"the merge left out the scale, {scale:g}"),
        (scale, f"the merge applied the scale, {scale:g}, twice"),
        (2.0, "it was merged twice"),
        (0.5, "half of it was merged"),
        (-1.0, "it was subtracted instead of added"),
        (0.0, "nothing along it was merged"),
    )
    return next((words for factor, words in explanations if abs(share - factor) <= tolerance), "")


def _finding(
    evidence: Evidence, kind: Kind, why: str, found: list[tuple[Restart, MergedShare]]
) -> Finding:
    shares = [share for _, share in found]
    names = dict.fromkeys(share.name for share in shares)
    place = evidence.place.of((restart.step for restart, _ in found), names)
    share, lost, unmoved, size, rest, bound = (
        median(getattr(one, name) for one in shares)
        for name in ("share", "lost", "unmoved", "size", "rest", "bound")
    )
    matrices = f"{len(names)} matri{'x' if len(names) == 1 else 'ces'}"
    because = f": {why}" if why else ""
    words = {
        CHANGED: f"W changed by {share:.3g} × scale·B·A instead of 1 ×{because} (± {bound:.1g}; "
        f"median of {matrices})",
        NOTHING: f"W is the same to the last bit before and after in {matrices}, although "
        f"scale·B·A has {size:.2g} of the norm of W",
        OTHERWISE: f"in {matrices}, W changed by {share:.3g} × scale·B·A and, in other directions, "
        f"by {rest:.2g} of its norm",
        ROUNDED: f"rounding took {lost:.0%} of what was merged (norm; median of {matrices}), and "
        f"{unmoved:.0%} of the entries did not move; a merge has {size:.2g} of the norm of W",
    }
    numbers: dict[str, Number] = {
        "share": share,
        "share_error": bound,
        "matrices": len(names),
        "lost": lost,
        "unmoved": unmoved,
        "relative_size": size,
        "other_directions": rest,
    }
    return kind.at(place, words[kind], numbers, severity=_severity(kind, found, lost))


def _severity(kind: Kind, found: list[tuple[Restart, MergedShare]], lost: float) -> Severity | None:
    if kind is ROUNDED and lost > MOSTLY_LOST:
        return "error"
    # A trainer that follows its settings otherwise than is known may not have restarted at all.
    return "warning" if all(restart.source == "rule" for restart, _ in found) else None
