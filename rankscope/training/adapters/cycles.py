"""Cycles of adapters: how they end, and with which rank and subspace they begin.

G is the gradient of the loss with respect to the effective weight, A the new ``lora_A``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor, nn

from rankscope.metrics import effective_rank
from rankscope.new_cycle import a_generator
from rankscope.training.adapters.energies import (
    averaged,
    core_singular_values,
    normalised_energies,
)
from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    renew,
    require_ranks,
    target_shapes,
    wrap,
)
from rankscope.training.adapters.published import OldAdapters, PublishedLinear
from rankscope.training.adapters.ranks import next_ranks
from rankscope.training.adapters.subspaces import captured_energy, new_a, overlap
from rankscope.training.config import Config

CycleStart = dict[str, float | int]


@dataclass
class Cycles:
    """Ends and begins the adapters of a run, and knows how the present ones began.

    Attributes
    ----------
    config
        The run.
    starts
        For each adapter of the present cycle: its ``rank``; the ``captured_energy`` of A, that is
        the share of G within the span of its rows; and, from the second cycle on, the ``overlap``
        of that span with the previous one. The last two are in [0, 1]. A is the one that trains:
        the old one where it overwrites the new (``published.factors_survive``).
    energies
        For the rank policy ``budget``: normalised squared singular values of G, averaged over the
        cycles so far, by name.
    """

    config: Config
    starts: dict[str, CycleStart] = field(default_factory=dict)
    energies: dict[str, Tensor] = field(default_factory=dict)

    def end(self, model: nn.Module) -> dict[str, Tensor]:
        """Merge every adapter into its weight; return the singular values of each delta by name."""
        merged = {}
        for name, layer in iter_adapters(model):
            left = layer.merged_scale * layer.lora_B.double()
            merged[name] = core_singular_values(left, layer.lora_A)
            layer.merge()
        return merged

    def begin(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        gradients: Mapping[str, Tensor],
        *,
        cycle: int,
        cycles: int,
        merged: Mapping[str, Tensor],
        agree: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    ) -> None:
        """Give every target layer a new adapter.

        Parameters
        ----------
        model, optimizer
            Changed in place; the optimizer forgets the old adapters. It may be None.
        gradients
            G of every projection, by the name ``<module>.weight``.
        cycle, cycles
            Number of this cycle, from 0, and how many there are. Seed, name and cycle decide A.
        merged
            What `end` returned; empty if no adapters ended.
        agree
            Returns the first process's value, so that all processes get the same adapters.
        """
        config, published = self.config, self.config.relora.published
        old_a = {name: layer.lora_A.detach().cpu() for name, layer in iter_adapters(model)}
        factors = agree(self._factors(model, gradients, merged, cycle=cycle, cycles=cycles))
        survivors = old_a if published.factors_survive and optimizer is not None else {}
        self.starts = {
            name: self._start(
                survivors.get(name, a), gradients[f"{name}.weight"].cpu(), old_a.get(name)
            )
            for name, a in factors.items()
        }
        old = OldAdapters(model, optimizer, published) if optimizer and published else None
        for name, a in factors.items():
            wrap(model, name, a, scale=config.adapter.scale(len(a)), make=self.layer)
        if optimizer is not None:
            renew(optimizer, model)
        if old is not None:
            old.restore_survivors(seed=config.seed, cycle=cycle)

    def layer(self, weight: nn.Parameter, a: Tensor, scale: float) -> LoRALinear:
        """Layer that replaces a projection."""
        if published := self.config.relora.published:
            return PublishedLinear(weight, a, scale=scale, published=published)
        return LoRALinear(weight, a, scale=scale)

    def summary(self, merged: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the adapters, for the log: of what was merged, and of what began."""
        values: dict[str, float] = {}
        if merged:
            ranks = {n: effective_rank(s.numpy()) if s.any() else 0.0 for n, s in merged.items()}
            values["merged_effective_rank"] = fmean(ranks.values())
            values["merged_rank_utilisation"] = fmean(r / len(merged[n]) for n, r in ranks.items())
        for key in ("rank", "captured_energy", "overlap"):
            if known := [start[key] for start in self.starts.values() if key in start]:
                values[key] = fmean(known)
        if self.starts:
            values["rank_min"] = min(start["rank"] for start in self.starts.values())
            values["rank_max"] = max(start["rank"] for start in self.starts.values())
        return values

    def _factors(
        self,
        model: nn.Module,
        gradients: Mapping[str, Tensor],
        merged: Mapping[str, Tensor],
        *,
        cycle: int,
        cycles: int,
    ) -> dict[str, Tensor]:
        """A of every adapter of the next cycle, float32 on the CPU."""
        settings, adapter = self.config.relora, self.config.adapter
        shapes = target_shapes(model, adapter.target_modules)
        if settings.rank_policy == "budget":
            for name in shapes:
                new = normalised_energies(gradients[f"{name}.weight"]).cpu()
                self.energies[name] = averaged(self.energies.get(name), new)
        ranks = next_ranks(
            settings,
            adapter.rank,
            shapes,
            cycle=cycle,
            cycles=cycles,
            deltas=merged,
            ranks={name: layer.rank for name, layer in iter_adapters(model)},
            energies=self.energies,
        )
        require_ranks(ranks, shapes)
        if settings.published.zero_factors and cycle == 0:
            return {name: torch.zeros(ranks[name], shapes[name][1]) for name in shapes}
        return {
            name: new_a(
                settings.a_init,
                shape,
                ranks[name],
                generator=a_generator(self.config.seed, cycle=cycle, name=name),
                gradient=gradients[f"{name}.weight"],
            )
            for name, shape in shapes.items()
        }

    def _start(self, a: Tensor, gradient: Tensor, old_a: Tensor | None) -> CycleStart:
        start: CycleStart = {"rank": len(a), "captured_energy": captured_energy(gradient, a)}
        return start if old_a is None else start | {"overlap": overlap(a, old_a)}
