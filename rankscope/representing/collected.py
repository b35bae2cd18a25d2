"""Places in a network, what is found there, and what comparing a checkpoint takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankscope.pipeline.curves import Curve
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

    @property
    def kind(self) -> str:
        """What a call measures together: the ends of the network go with the outputs of blocks."""
        return "block" if self.at in (EMBEDDING, FINAL) else self.at

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


@dataclass(frozen=True)
class Side:
    """One checkpoint, as far as comparing it takes.

    Attributes
    ----------
    path
        File of its kept features.
    key, probe
        As in `rankscope.representing.feature_files.FeatureFile`.
    places
        Where it has features.
    """

    curve: Curve
    step: int
    path: Path
    key: str
    probe: str
    places: tuple[Place, ...]


def series_key(side: Side) -> tuple[str, str]:
    """What the steps of one series have in common: the run, and how it was looked into."""
    return side.curve.run, side.curve.folder


def kind_of_features(side: Side) -> tuple[Any, ...]:
    """What features of two runs must share to be compared: text, tokens, kind of place."""
    settings = side.curve.settings
    return side.curve.task, settings["features"], settings["at"]
