"""Settings of the adapters: their shape, their restarts, and what was published instead."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from rankscope.errors import WrongSettingError
from rankscope.training.config.checks import at_least, in_unit_interval, one_of, positive

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RankPolicy = Literal["fixed", "budget", "saturation", "schedule"]
Subspace = Literal["random", "orthogonal", "grad_top", "grad_sample", "mix"]
PROJECTIONS: tuple[Projection, ...] = get_args(Projection)


@dataclass(frozen=True)
class AdapterConfig:
    """The low-rank adapters."""

    rank: int = 4
    alpha: float = 8.0
    rank_stabilised: bool = False  # scale = alpha / sqrt(rank) instead of alpha / rank
    target_modules: tuple[Projection, ...] = PROJECTIONS

    def __post_init__(self) -> None:
        at_least("adapter.rank", self.rank, 1)
        positive("adapter.alpha", self.alpha)
        if not self.target_modules:
            raise WrongSettingError("adapter.target_modules is empty: name at least one projection")
        for name in self.target_modules:
            one_of("adapter.target_modules", name, PROJECTIONS)

    def scale(self, rank: int) -> float:
        """Factor of the product B·A in the forward pass, in merges and on disk."""
        return self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


@dataclass(frozen=True)
class PublishedConfig:
    """What the published programs do and ReLoRA as described does not; all off by default.

    Each switch reproduces one behaviour of ``relora-pico`` (Weiss et al. 2025) or of
    ``Guitaricet/relora`` (Lialin et al. 2023), so that its effect can be measured. `PROGRAMS` has
    all that are on in each of them.
    """

    zero_factors: bool = False  # A = B = 0 until the first restart: nothing is learned by them
    merge_without_scale: bool = False  # merges add B·A, while the forward pass has scale·B·A
    factors_survive: bool = False  # the optimizer's copies overwrite the new factors
    merge_in_bfloat16: bool = False  # frozen weights and their sums are rounded to it
    pruned_moments: float = 0.0  # share of each moment zeroed at random; 0: all is deleted
    dropout: float = 0.0  # on the input of the adapters
    zero_rate_step: bool = False  # the first update and the one before each restart have rate 0

    def __post_init__(self) -> None:
        in_unit_interval("relora.published.pruned_moments", self.pruned_moments)
        in_unit_interval("relora.published.dropout", self.dropout)

    def __bool__(self) -> bool:
        """Whether any of them is on."""
        return self != PublishedConfig()


_BOTH = PublishedConfig(
    zero_factors=True,
    merge_in_bfloat16=True,
    pruned_moments=0.999,
    dropout=0.1,
    zero_rate_step=True,
)
PROGRAMS = {
    "none": PublishedConfig(),
    "lialin2023": _BOTH,
    "weiss2025": replace(_BOTH, merge_without_scale=True, factors_survive=True),
}


@dataclass(frozen=True)
class ReLoRAConfig:
    """Rank and subspace of the adapters of each cycle."""

    rank_policy: RankPolicy = "fixed"
    minimum_rank: int = 1
    maximum_rank: int = 0  # 0: the smaller side of each matrix
    rank_multiple: int = 1  # ranks are multiples of it
    final_rank: int = 1  # of the last cycle, for rank_policy = "schedule"
    a_init: Subspace = "random"
    probe_sequences: int = 64  # for the gradient by which ranks and subspaces are chosen
    published: PublishedConfig = field(default_factory=PublishedConfig)

    def __post_init__(self) -> None:
        one_of("relora.rank_policy", self.rank_policy, get_args(RankPolicy))
        one_of("relora.a_init", self.a_init, get_args(Subspace))
        at_least("relora.minimum_rank", self.minimum_rank, 1)
        at_least("relora.maximum_rank", self.maximum_rank, 0)
        at_least("relora.rank_multiple", self.rank_multiple, 1)
        at_least("relora.final_rank", self.final_rank, 1)
        at_least("relora.probe_sequences", self.probe_sequences, 1)
        if self.maximum_rank and self.maximum_rank < self.minimum_rank:
            raise WrongSettingError(
                f"relora.maximum_rank = {self.maximum_rank} is less than "
                f"relora.minimum_rank = {self.minimum_rank}"
            )
        survives = self.published.factors_survive or self.published.pruned_moments > 0
        if survives and self.rank_policy != "fixed":
            raise WrongSettingError(
                "relora.published.factors_survive and pruned_moments keep the old factors or their "
                "optimizer state, so the rank cannot change: set relora.rank_policy = 'fixed', "
                f"not {self.rank_policy!r}"
            )
