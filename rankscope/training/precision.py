"""The dtype of matrix products, with and without autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from rankscope.training.config import Config


def forward_precision(config: Config) -> torch.autocast:
    """Context of a forward pass in the precision of the run; parameters stay float32."""
    return torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bfloat16")


def product_type(x: Tensor) -> torch.dtype:
    """Dtype in which ``x`` enters a matrix product: autocast's where it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def as_given(x: Tensor) -> AbstractContextManager[object]:
    """Context in which products of tensors on the device of ``x`` keep their dtype."""
    device = x.device.type
    # Entering autocast takes longer than a small product, so it is entered only where it matters.
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()
