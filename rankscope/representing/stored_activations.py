"""Activations that pico-train stored beside its checkpoints: features without running a model.

``learning_dynamics/train_activations.pt`` and ``val_activations.pt`` hold, for each module that the
training was told to watch, its output at one token (the last, unless configured) of every sample:
(samples, dimensions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.weights_file import open_table
from rankscope.checkpoints.layouts.pico import DYNAMICS
from rankscope.checkpoints.run import Checkpoint
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError
from rankscope.representations.feature_sums import BLOCKS, FeatureSums
from rankscope.representing.collected import Collected, Place
from rankscope.spectra.formats import FORMATS

# The text that the table names → the file.
FILES = {"stored-train": "train_activations.pt", "stored-val": "val_activations.pt"}
STORED_TEXTS = tuple(FILES)
# The modules whose outputs a block adds to what passes through, as `places.PROJECTIONS`.
ADDED = {"attention.o_proj": "attention", "swiglu.w_2": "mlp"}
IN_LAYER = re.compile(r"(?:.*\.)?layers\.(\d{1,9})\.(.+)")


def activation_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Files of stored activations by the name of their text."""
    if not checkpoint.path.is_dir():
        return {}
    places = {text: checkpoint.path / DYNAMICS / name for text, name in FILES.items()}
    return {text: path for text, path in places.items() if path.is_file()}


def stored_features(path: Path, kept: int) -> Iterator[tuple[Collected, int]]:
    """What is stored of each module in a block, and the significant bits of its numbers.

    Sample i is in block i mod 16.

    Parameters
    ----------
    kept
        Keep the features of at most this many samples.

    Raises
    ------
    RankscopeError
        If the file is damaged, or holds no activations.
    """
    places = _places(path)
    if not places:
        message = "holds no activations of layers: no array (samples, dimensions) under such a name"
        raise RankscopeError(message, path=path, reason="no-activations")
    for place, tensor in places.items():
        features = tensor.read()
        samples = len(features)
        blocks = np.arange(samples) % BLOCKS
        sums = [FeatureSums.of(features[blocks == block]) for block in range(BLOCKS)]
        rows = kept_samples(samples, kept)
        yield (
            Collected(place, sums, features[rows].astype(np.float32)),
            FORMATS[tensor.dtype].significant_bits,
        )


def kept_samples(samples: int, kept: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Indices of at most ``kept`` evenly spread samples."""
    count = min(samples, kept)
    return np.arange(count, dtype=np.int64) * samples // max(count, 1)


def sample_count(path: Path) -> int:
    """Number of samples in a file of activations; of the module with the most."""
    return max((tensor.shape[0] for tensor in _places(path).values()), default=0)


def _places(path: Path) -> Mapping[Place, Tensor]:
    """Each stored array by its place, in the order of layers."""
    found: dict[Place, Tensor] = {}
    for name, tensor in open_table(path).tensors.items():
        match = IN_LAYER.fullmatch(plain_name(name))
        if match is None or len(tensor.shape) != 2 or tensor.dtype not in FORMATS:
            continue
        found[Place(int(match[1]), ADDED.get(match[2], match[2]))] = tensor
    return dict(sorted(found.items(), key=lambda one: (one[0].layer, one[0].at)))
