"""A place in a network, and what is found there: contracts of those who read features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankscope.representations.feature_sums import FeatureSums

At = Literal["block", "attention", "mlp"]
Energy = Literal["weight", "adapter", "update"]
EMBEDDING, FINAL = "embedding", "final"
NO_PLACE = "no-place"  # reason where features cannot be read at a place


@dataclass(frozen=True)
class Place:
    """A place in a network.

    Attributes
    ----------
    layer
        Number of the block; −1 for what enters the first block, and the number of blocks for what
        the output layer reads.
    at
        ``embedding``, ``block`` (its output), ``attention``, ``mlp`` or ``final``; of stored
        activations, else the name of the module within its block.
    """

    layer: int
    at: str

    def __str__(self) -> str:
        return f"the {self.at} of layer {self.layer}"


@dataclass(frozen=True)
class Collected:
    """What was found at one place.

    Attributes
    ----------
    sums
        One for each block of documents.
    kept
        (kept, d): the features that are kept for comparisons, in the order of the probe.
    """

    place: Place
    sums: Sequence[FeatureSums]
    kept: NDArray[np.float32]
