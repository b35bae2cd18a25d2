"""Behaviours of the published programs, each with a switch.

The papers describe ReLoRA as `rankscope.training.adapters.lora_linear` implements it. The programs
of Lialin et al. 2023 (Guitaricet/relora) and Weiss et al. 2025 (relora-pico) differ from that, in
part unintentionally. The switches of ``[relora.published]`` bring these behaviours back, so that
the effect of each can be measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankscope.keyed import keyed_generator, keyed_global_generators
from rankscope.training.adapters.lora_linear import LoRALinear, iter_adapters
from rankscope.training.config import PublishedConfig


class PublishedLinear(LoRALinear):
    """A `LoRALinear` with the published forward pass and merge."""

    def __init__(
        self, weight: nn.Parameter, a: Tensor, *, scale: float, published: PublishedConfig
    ) -> None:
        super().__init__(weight, a, scale=scale)
        self.published = published
        if published.merge_in_bfloat16:  # which the whole frozen weight was kept in
            self.weight.data = self.weight.bfloat16().to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``W x + scale * B A dropout(x)``."""
        if not (self.published.dropout and self.training):
            return super().forward(x)
        left, right = self.factors(self.lora_A.dtype)
        dropped = F.dropout(x, self.published.dropout)
        return F.linear(x, self.weight) + F.linear(F.linear(dropped, right), left)

    @property
    def merged_scale(self) -> float:
        """Factor of B·A in what a merge adds."""
        return 1.0 if self.published.merge_without_scale else self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Add to W what the published programs add."""
        dtype = torch.bfloat16 if self.published.merge_in_bfloat16 else torch.float64
        left, right = self.merged_scale * self.lora_B.to(dtype), self.lora_A.to(dtype)
        self.weight.copy_(self.weight.to(dtype) + left @ right)


@dataclass(frozen=True)
class _OldFactor:
    """A factor of an adapter that has ended, with its values and optimizer state."""

    name: str
    parameter: nn.Parameter
    values: Tensor
    state: dict[str, Any]


class OldAdapters:
    """The adapters of the ended cycle, which partly survive in the published programs.

    Made before the new adapters; `restore_survivors` is called after these have been made.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, published: PublishedConfig
    ) -> None:
        self.optimizer, self.published = optimizer, published
        self.factors = [
            _OldFactor(
                f"{name}.{factor}",
                parameter,
                parameter.detach().clone(),
                dict(optimizer.state.get(parameter, {})),
            )
            for name, layer in iter_adapters(model)
            for factor, parameter in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
        ]

    def restore_survivors(self, *, seed: int, cycle: int) -> None:
        """Restore what survives of the old adapters.

        With ``pruned_moments``, Adam keeps its step count, and most entries of its moments become
        zero, chosen at random for each moment separately. With ``factors_survive``, the next step
        of the optimizer starts from the old factors: it holds float32 copies of the parameters,
        does not know the new ones, and writes its copies back. So the new factors live for one
        gradient.
        """
        if self.published.pruned_moments:
            for old in self.factors:
                if old.state:
                    self.optimizer.state[old.parameter] = self._pruned(old, seed=seed, cycle=cycle)
        if self.published.factors_survive and self.factors:
            handle = self.optimizer.register_step_pre_hook(lambda *_: self._write_back(handle))

    def _pruned(self, old: _OldFactor, *, seed: int, cycle: int) -> dict[str, Any]:
        pruned = dict(old.state)
        for moment in ("exp_avg", "exp_avg_sq"):
            generator = keyed_generator(seed, "prune", cycle, old.name, moment)
            draw = torch.rand(old.values.shape, generator=generator)
            kept = draw >= self.published.pruned_moments
            pruned[moment] = old.state[moment] * kept.to(old.values.device)
        return pruned

    @torch.no_grad()
    def _write_back(self, handle: torch.utils.hooks.RemovableHandle) -> None:
        handle.remove()
        for old in self.factors:
            old.parameter.copy_(old.values)


@contextmanager
def keyed_dropout(model: nn.Module, published: PublishedConfig, *key: str | int) -> Iterator[None]:
    """Draw the dropout masks of a forward pass from a generator of their own.

    ``key`` is the seed and what identifies this pass among all others. At the end torch's global
    generators are as before.
    """
    if not published.dropout:
        yield
        return
    seed, *rest = key
    device = next(model.parameters()).device
    with keyed_global_generators(device, int(seed), "dropout", *rest):
        yield
