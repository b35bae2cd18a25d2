"""Low-rank adapters: wrap, merge, reset, restart.

W frozen weight (out, in), A ``lora_A`` (r, in), B ``lora_B`` (out, r); the layer computes
``(W + scale * B @ A) x``. After Lialin et al. 2023, "ReLoRA: High-Rank Training Through Low-Rank
Updates", with the restart as its authors meant it: a merge leaves the function as it was, and
nothing of the old adapter survives in the new one or in the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.training.config import AdapterConfig
from rankscope.training.keyed import keyed_generator


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank delta.

    Parameters
    ----------
    weight
        W, (out, in); it is kept in its own type and no longer trained.
    rank
        r, at least 1.
    scale
        Factor of B·A. It stands in `factors` and nowhere else, so that the forward pass and the
        merge cannot disagree on it.
    """

    def __init__(self, weight: Tensor, *, rank: int, scale: float) -> None:
        super().__init__()
        out_features, in_features = weight.shape
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.lora_A = nn.Parameter(weight.new_zeros(rank, in_features))
        self.lora_B = nn.Parameter(weight.new_zeros(out_features, rank))
        self.scale = scale

    def factors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``(scale * B, A)``: their product is the delta."""
        return self.scale * self.lora_B.to(dtype), self.lora_A.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(W + delta) x`` without forming the delta, which would cost as much as training W."""
        left, right = self.factors(self.lora_A.dtype)
        return F.linear(x, self.weight) + F.linear(F.linear(x, right), left)

    def delta(self) -> Tensor:
        """Return the weight that the adapter adds, (out, in), in float64."""
        left, right = self.factors(torch.float64)
        return left @ right

    @torch.no_grad()
    def merge(self) -> None:
        """Add the delta to W, rounding once; the adapter itself stays as it is."""
        self.weight.copy_(self.weight.double() + self.delta())

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Start an adapter: A from U(-1/sqrt(in), 1/sqrt(in)), B zero, both in place.

        With B = 0 the delta is zero but the gradient of B is not. Were A zero as well, both
        gradients would vanish and the adapter would never learn.
        """
        bound = 1 / math.sqrt(self.lora_A.shape[1])
        draw = torch.empty(self.lora_A.shape).uniform_(-bound, bound, generator=generator)
        self.lora_A.copy_(draw)
        self.lora_B.zero_()


def wrap(model: nn.Module, adapter: AdapterConfig, *, seed: int) -> None:
    """Replace the target projections of a model by `LoRALinear`; its function stays the same.

    Raises
    ------
    RankscopeError
        If the rank exceeds what the delta of one of them can have.
    """
    for name, layer in list(model.named_modules()):
        parent_name, _, attribute = name.rpartition(".")
        if isinstance(layer, nn.Linear) and attribute in adapter.target_modules:
            if adapter.rank > min(layer.weight.shape):
                raise RankscopeError(
                    f"adapter.rank = {adapter.rank} exceeds the smaller side of {name}, "
                    f"which is {' x '.join(map(str, layer.weight.shape))}"
                )
            wrapped = LoRALinear(layer.weight, rank=adapter.rank, scale=adapter.scale)
            wrapped.reset(keyed_generator(seed, "lora_A", 0, name))
            setattr(model.get_submodule(parent_name), attribute, wrapped)


def iter_adapters(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Every wrapped layer with its name, as ``model.layers.0.self_attn.q_proj``."""
    for name, layer in model.named_modules():
        if isinstance(layer, LoRALinear):
            yield name, layer


def restart(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, restarts: int, seed: int
) -> None:
    """Merge every adapter and begin the next cycle with new ones.

    Parameters
    ----------
    model, optimizer
        Changed in place: parameters keep their identity, those that are not wrapped their values
        and their optimizer state.
    restarts
        The number of this restart, from 1; with the seed and the name it decides the new A.
    seed
        Seed of the run.
    """
    for name, layer in iter_adapters(model):
        layer.merge()
        layer.reset(keyed_generator(seed, "lora_A", restarts, name))
        # Adam's moments and step belong to the old adapter. Zeroed moments with the old step count
        # would go without bias correction, pruned ones would make single entries jump.
        for parameter in (layer.lora_A, layer.lora_B):
            optimizer.state.pop(parameter, None)
