"""The adapters of one cycle after another: how they end, and of what rank and subspace they begin.

G gradient of the loss with respect to the effective weight, A the new ``lora_A``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor, nn

from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    renew,
    require_ranks,
    target_shapes,
    wrap,
)
from rankscope.training.adapters.published import OldAdapters, PublishedLinear
from rankscope.training.adapters.ranks import (
    averaged,
    core_singular_values,
    effective_rank,
    next_ranks,
    normalised_energies,
)
from rankscope.training.adapters.subspaces import captured_energy, new_a, overlap
from rankscope.training.config import Config
from rankscope.training.keyed import keyed_generator

Begun = dict[str, float | int]


@dataclass
class Cycles:
    """What is known of the adapters, and decides on the next ones.

    Attributes
    ----------
    config
        The run.
    begun
        For each adapter of the present cycle its ``rank``, the ``captured_energy`` of A, that is
        how much of G lies in the span of its rows, and the ``overlap`` of that span with the one
        of the cycle before, both in [0, 1]. No overlap in the first cycle.
    energies
        For the rank policy ``budget``: normalised squared singular values of G, averaged over the
        cycles so far, by name.
    """

    config: Config
    begun: dict[str, Begun] = field(default_factory=dict)
    energies: dict[str, Tensor] = field(default_factory=dict)

    def end(self, model: nn.Module) -> dict[str, Tensor]:
        """Merge every adapter into its weight; return the singular values of what was merged."""
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
            Changed in place; the optimizer forgets the old adapters. None: there is none yet.
        gradients
            G of every projection, as ``<module>.weight``.
        cycle, cycles
            Number of this cycle, from 0, and of all; with the seed and the name it decides A.
        merged
            What `end` returned, empty where no adapters ended.
        agree
            Returns the first process's value, so that all processes have the same adapters.
        """
        config, published = self.config, self.config.relora.published
        old_a = {name: layer.lora_A.detach().cpu() for name, layer in iter_adapters(model)}
        factors = agree(self._factors(model, gradients, cycle, cycles, merged))
        self.begun = {
            name: self._begun(a, gradients[f"{name}.weight"].cpu(), old_a.get(name))
            for name, a in factors.items()
        }
        old = OldAdapters(model, optimizer, published) if optimizer and published else None
        for name, a in factors.items():
            wrap(model, name, a, scale=config.adapter.scale(len(a)), make=self.layer)
        if optimizer is not None:
            renew(optimizer, model)
        if old is not None:
            old.haunt(seed=config.seed, cycle=cycle)

    def layer(self, weight: nn.Parameter, a: Tensor, scale: float) -> LoRALinear:
        """Return the layer that a projection is replaced by."""
        if published := self.config.relora.published:
            return PublishedLinear(weight, a, scale=scale, published=published)
        return LoRALinear(weight, a, scale=scale)

    def summary(self, merged: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over the adapters, for the log: what was merged, and what began after that."""
        values: dict[str, float] = {}
        if merged:
            ranks = {name: effective_rank(s) if s.any() else 0.0 for name, s in merged.items()}
            values["merged_effective_rank"] = fmean(ranks.values())
            values["merged_rank_utilisation"] = fmean(r / len(merged[n]) for n, r in ranks.items())
        for key in ("rank", "captured_energy", "overlap"):
            if known := [begun[key] for begun in self.begun.values() if key in begun]:
                values[key] = fmean(known)
        if self.begun:
            values["rank_min"] = min(begun["rank"] for begun in self.begun.values())
            values["rank_max"] = max(begun["rank"] for begun in self.begun.values())
        return values

    def _factors(
        self,
        model: nn.Module,
        gradients: Mapping[str, Tensor],
        cycle: int,
        cycles: int,
        merged: Mapping[str, Tensor],
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
        return {name: self._new_a(name, shapes, ranks, gradients, cycle) for name in shapes}

    def _new_a(
        self,
        name: str,
        shapes: Mapping[str, tuple[int, int]],
        ranks: Mapping[str, int],
        gradients: Mapping[str, Tensor],
        cycle: int,
    ) -> Tensor:
        settings, seed = self.config.relora, self.config.seed
        if settings.published.zero_factors and cycle == 0:
            return torch.zeros(ranks[name], shapes[name][1])
        return new_a(
            settings.a_init,
            shapes[name],
            ranks[name],
            generator=keyed_generator(seed, "lora_A", cycle, name),
            gradient=gradients[f"{name}.weight"],
        )

    def _begun(self, a: Tensor, gradient: Tensor, old_a: Tensor | None) -> Begun:
        begun: Begun = {"rank": len(a), "captured_energy": captured_energy(gradient, a)}
        return begun if old_a is None else begun | {"overlap": overlap(a, old_a)}
