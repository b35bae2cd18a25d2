"""A checkpoint whose features are compared, and what it must share with another one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.pipeline.curves import Curve
from rankscope.representing.collected import Place


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
