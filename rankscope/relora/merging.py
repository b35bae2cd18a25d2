"""A merge: the delta of an adapter is added to its frozen weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.relora.adapted_model import MergedFactors, factors_of
from rankscope.relora.targets import require_whole

ADVICE = "nothing was merged: go back to the last good checkpoint"


def require_finite(layers: Mapping[str, LoraLinear]) -> None:
    """Raise `RankscopeError` if an adapter cannot be merged; nothing has been changed by then."""
    for name, layer in layers.items():
        require_whole(layer.get_base_layer().weight, name)
        if layer.merged:
            message = "is merged already, by PEFT's own methods: call `unmerge_adapter` first"
            raise RankscopeError(message, tensor=name)
        a, b, _ = factors_of(layer)
        if not bool(torch.isfinite(a).all() & torch.isfinite(b).all()):
            message = f"its adapter holds NaN or infinity, so {ADVICE}"
            raise RankscopeError(message, tensor=name, reason="nonfinite")


@torch.no_grad()
def merge(layer: LoraLinear, name: str) -> MergedFactors:
    """Add the delta of an adapter to its weight, in float64, rounded once to the weight's dtype.

    The adapter stays as it is, so that the layer has the delta twice until its B is zeroed.

    Raises
    ------
    RankscopeError
        If the sum is beyond the largest number of the weight's dtype; the weight is as before.
    """
    weight = cast(nn.Parameter, layer.get_base_layer().weight)
    a, b, scale = factors_of(layer)
    # Of the devices that torch knows, Apple's has no float64.
    wide = torch.device("cpu") if weight.device.type == "mps" else weight.device
    delta = scale * (b.to(wide, torch.float64) @ a.to(wide, torch.float64))
    exact = weight.to(wide, torch.float64) + (delta.T if layer.fan_in_fan_out else delta)
    stored = exact.to(weight.dtype)
    if not bool(torch.isfinite(stored).all()) and bool(torch.isfinite(weight).all()):
        message = f"its merged weight is beyond the numbers of {weight.dtype}"
        raise RankscopeError(message.replace("torch.", ""), tensor=name, reason="nonfinite")
    size, lost = float(delta.norm()), float((stored.double() - exact).norm())
    weight.copy_(stored)
    return MergedFactors(_copy(a), _copy(b), scale, lost / size if size else 0.0)


def _copy(factor: Tensor) -> Tensor:
    return factor.detach().to("cpu", copy=True)
