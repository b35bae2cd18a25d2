"""What is asked of a checkpoint, and what was found in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.file_states import FileStates
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.text_sets import TextSet
from rankscope.pipeline.choices import Numbers
from rankscope.pipeline.curves import Curve
from rankscope.representing.collected import Energy
from rankscope.representing.feature_files import FeatureFile, KeptFeatures
from rankscope.representing.probe_windows import ProbeOptions
from rankscope.scoring.text_model import TextEncoder

STORED = "stored"  # the kind of place of activations that a training stored
INPUTS = "inputs"  # the kind of place of what weights read

Series = tuple[str, str, str, str]  # run, text, features, kind of place


def series_of(curve: Curve) -> Series:
    """What the tables have once: later settings of the same series replace earlier ones."""
    return curve.run, curve.task, curve.settings["features"], curve.settings["at"]


@dataclass(frozen=True)
class FeatureRequest:
    """What every checkpoint is asked for.

    Attributes
    ----------
    text
        The text of the probe; None for the activations that trainings stored.
    at
        Kinds of places.
    energy
        Matrices whose directions meet what they read, if any.
    """

    text: TextSet | None
    probe: ProbeOptions
    at: tuple[str, ...]
    options: OpenOptions
    steps: Numbers | None
    energy: tuple[Energy, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of places, with that of the inputs of weights if it is wanted."""
        return (*self.at, *([INPUTS] if self.energy else []))


@dataclass(frozen=True)
class FeatureTask:
    """One checkpoint to look into at all places of one kind.

    Attributes
    ----------
    key
        Digest of all that the numbers depend on.
    encoder
        The model's tokenizer; None where the features are stored.
    stored
        The file that holds them.
    previous
        The checkpoint that updates are measured from, if any.
    files
        Every file that is read, with its state when it was planned.
    """

    key: str
    curve: Curve
    run: Run
    checkpoint: Checkpoint
    files: FileStates
    encoder: TextEncoder | None = None
    stored: Path | None = None
    previous: Checkpoint | None = None
    work: float = 1.0


@dataclass(frozen=True)
class FoundFeatures:
    """What was found in one checkpoint.

    Attributes
    ----------
    numbers
        The numbers of all places.
    kept
        What comparisons are computed from; None where it is in the store already.
    """

    numbers: FeatureFile
    kept: KeptFeatures | None = None

    @property
    def key(self) -> str:
        """Digest of everything that it depends on."""
        return self.numbers.key
