"""When the first, full-rank phase may end: once the rank of its updates has settled.

ΔW = W - W₀, q = ``phases.probe_every``, ρ_l(t) the rank of layer l's ΔW at step t. The phase ends
at the first step t = jq, not before ``phases.earliest`` and not after its length, at which for the
second time in a row the mean over l of ``|ρ_l(t) - ρ_l(t - q)| / ρ_l(t - q)`` is below
``phases.tolerance``. After Wang et al. 2023, "Cuttlefish: Low-Rank Model Training without All the
Tuning", which watches the stable ranks of the weights; here it is the updates that become low-rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor, nn

from rankscope.training.adapters.ranks import effective_rank
from rankscope.training.config import PhasesConfig
from rankscope.training.model import is_projection

CALM_LOOKS = 2


def rank_of_update(update: Tensor, kind: str) -> float:
    """Stable rank Σs²/s₁², or effective rank exp(-Σ p ln p) with p = s/Σs; 0 of a zero update."""
    s = torch.linalg.svdvals(update.double())
    if not s[0] > 0:
        return 0.0
    if kind == "stable_rank":
        return float(s.square().sum() / s[0] ** 2)
    return effective_rank(s)


class Settling:
    """What was seen of the ranks so far.

    Attributes
    ----------
    seen
        All of it, kept for a resumption: ρ by name, and ``calm``, the looks in a row that found no
        change.
    """

    def __init__(
        self, settings: PhasesConfig, model: nn.Module, *, seen: Mapping[str, float]
    ) -> None:
        """Begin with the initial weights of a model, those it has now."""
        self.settings, self.seen = settings, dict(seen)
        watched = projections(model) if settings.switch != "steps" else {}
        self.initial = {name: weight.clone() for name, weight in watched.items()}

    def is_due(self, step: int) -> bool:
        """Whether the ranks are looked at before the update of this step."""
        return bool(self.initial) and step > 0 and step % self.settings.probe_every == 0

    def look(self, model: nn.Module) -> float:
        """Take in the weights of this step; return the mean relative change, inf at the first."""
        weights = projections(model)
        ranks = {
            name: rank_of_update(weights[name] - start, self.settings.switch)
            for name, start in self.initial.items()
        }
        before = {name: self.seen[name] for name in ranks if self.seen.get(name, 0.0) > 0}
        change = (
            fmean(abs(ranks[name] - old) / old for name, old in before.items())
            if before
            else math.inf
        )
        calm = self.seen.get("calm", 0) + 1 if change < self.settings.tolerance else 0
        self.seen = {**ranks, "calm": calm}
        return change

    def has_settled(self, step: int) -> bool:
        """Whether the phase ends at this step."""
        return step >= self.settings.earliest and self.seen.get("calm", 0) >= CALM_LOOKS


def projections(model: nn.Module) -> dict[str, Tensor]:
    """Weights of attention and MLP, by name, cut off from any gradient."""
    return {n: p.detach() for n, p in model.named_parameters() if is_projection(n)}
