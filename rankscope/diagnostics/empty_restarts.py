"""Restarts that reset nothing: the adapters continue where they were."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import numpy as np

from rankscope.checkpoints.tensors import Tensor
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Unchecked
from rankscope.diagnostics.restarts import Restart, iter_restarts

# A new A is drawn at random, so its cosine with the old one is 0 ± 1/√(r·n), 0.05 for the smallest
# adapters of the demonstration; B starts at zero, so the sign of what it learns is as random. Half
# the adapters above this, in both factors, is no accident: healthy runs stay below 0.04.
SURVIVED = 0.3

RESET_NOTHING = Kind(
    "restart-reset-nothing",
    "error",
    "The adapters continue where they were: their reset was undone or never happened. Their "
    "content was also merged, so it counts twice, and each cycle adds the same directions again.",
    "Reset the parameters that the optimizer really updates; with DeepSpeed, FSDP or 16-bit "
    "optimizers, also its float32 copies. Compare the adapters one step after a merge.",
)


def check_resets(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the adapters before and after each restart."""
    steps: list[int] = []
    names: dict[str, None] = {}
    cosines: list[tuple[float, float]] = []
    only_rules = True
    for restart in iter_restarts(evidence):
        found = dict(_iter_cosines(evidence, restart))
        if not found:
            continue
        both = tuple(median(pair[i] for pair in found.values()) for i in (0, 1))
        if min(both) > SURVIVED:
            steps.append(restart.step)
            names |= dict.fromkeys(found)
            cosines.append((both[0], both[1]))
            only_rules &= restart.source == "rule"
    if steps:
        a, b = (median(pair[i] for pair in cosines) for i in (0, 1))
        text = (
            f"the cosine of the adapters after and before is {a:.2f} for A and {b:.2f} for B "
            f"(median of {len(names)}); new ones have 0"
        )
        place = evidence.place.of(steps, names)
        numbers = {"cosine_a": a, "cosine_b": b, "restarts": len(steps)}
        yield RESET_NOTHING.at(place, text, numbers, severity="warning" if only_rules else None)


def _iter_cosines(
    evidence: Evidence, restart: Restart
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Cosines of both factors with those before, by module; of zero factors none."""
    for module, new in restart.new.items():
        old = restart.old.get(module)
        if old is None or old.rank != new.rank or old.shape != new.shape:
            continue
        pairs = (new.lora_A, old.lora_A), (new.lora_B, old.lora_B)
        cosines = [_cosine(evidence, *pair, restart) for pair in pairs]
        if all(cosine is not None for cosine in cosines):
            yield module, (cosines[0] or 0.0, cosines[1] or 0.0)


def _cosine(evidence: Evidence, new: Tensor, old: Tensor, restart: Restart) -> float | None:
    one = evidence.sampled(new, restart.after.step).astype(np.float64)
    other = evidence.sampled(old, restart.before.step).astype(np.float64)
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms > 0 and np.isfinite(norms) else None
