"""When the first, full-rank phase may end: once the rank of its updates has settled.

ΔW = W - W₀, q = ``phases.probe_every``, ρ_l(t) the rank of layer l's ΔW at step t. The phase ends
at the first step t = jq, not before ``phases.earliest`` and not after its length, at which the
mean over l of ``|ρ_l(t) - ρ_l(t - q)| / ρ_l(t - q)`` is below ``phases.tolerance`` for the second
time in a row. After Wang et al. 2023, "Cuttlefish: Low-Rank Model Training without All the
Tuning", which watches the stable ranks of the weights; here it is the updates that become low-rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import torch
from torch import Tensor, nn

from rankscope.metrics import effective_rank, stable_rank
from rankscope.training.config import PhasesConfig
from rankscope.training.model import is_projection

QUIET_LOOKS = 2


def rank_of_update(update: Tensor, kind: str) -> float:
    """Stable or effective rank as in `rankscope.metrics`, but 0 for a zero update."""
    s = torch.linalg.svdvals(update.double()).cpu().numpy()
    if not s[0] > 0:
        return 0.0
    return stable_rank(s) if kind == "stable_rank" else effective_rank(s)


class Settling:
    """Watches the ranks of the updates of a first phase.

    Attributes
    ----------
    seen
        What a resumption needs: ρ by name at the last look, and ``quiet_looks``, how many looks
        in a row have found no change.
    """

    def __init__(
        self, settings: PhasesConfig, model: nn.Module, *, seen: Mapping[str, float]
    ) -> None:
        """Take the current weights of the model as the initial ones."""
        self.settings, self.seen = settings, dict(seen)
        watched = projections(model) if settings.switch != "steps" else {}
        self.initial = {name: weight.clone() for name, weight in watched.items()}

    def is_due(self, step: int) -> bool:
        """Whether to look at the ranks before the update of this step."""
        return bool(self.initial) and step > 0 and step % self.settings.probe_every == 0

    def look(self, model: nn.Module) -> float:
        """Look at the weights; return the mean relative change of ρ, inf at the first look."""
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
        is_quiet = change < self.settings.tolerance
        quiet_looks = self.seen.get("quiet_looks", 0) + 1 if is_quiet else 0
        self.seen = {**ranks, "quiet_looks": quiet_looks}
        return change

    def has_settled(self, step: int) -> bool:
        """Whether the phase ends at this step."""
        enough = self.seen.get("quiet_looks", 0) >= QUIET_LOOKS
        return enough and step >= self.settings.earliest


def projections(model: nn.Module) -> dict[str, Tensor]:
    """Weights of attention and MLP by name, detached."""
    return {n: p.detach() for n, p in model.named_parameters() if is_projection(n)}
