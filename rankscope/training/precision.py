"""In which type matrices are multiplied."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def product_type(x: Tensor) -> torch.dtype:
    """Type in which ``x`` enters a matrix product: autocast's where that is on, else its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def as_given(x: Tensor) -> AbstractContextManager[object]:
    """Let products of tensors on the device of ``x`` keep their type, autocast or not."""
    device = x.device.type
    # Entering autocast takes longer than a small product, so not without need.
    on = torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if on else nullcontext()
