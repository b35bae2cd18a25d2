"""The store of representations: two files per checkpoint and kind of place.

One holds the numbers of every place, which fill the table. The other holds the features of the
probe's kept tokens, from which checkpoints are compared without running a model again; it is
written first, and read only where something is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import DAMAGE, RankscopeError
from rankscope.representing.collected import Place
from rankscope.results.vectors import read_vectors, write_vectors

VERSION = "1"  # of arithmetic and files: numbers of other versions are never reused
Row = dict[str, Any]


@dataclass(frozen=True)
class FeatureFile:
    """What was found in one checkpoint at all places of one kind.

    Attributes
    ----------
    key
        Digest of everything that it depends on.
    probe
        Digest of the tokens whose features were collected: only the features of equal probes are
        compared.
    window, documents
        Tokens that the model was given at once, and documents that they are from; 0 where the
        features were stored by a training.
    seconds
        How long it took.
    rows
        The place and the numbers of each row of the table.
    bits
        Significant bits of the features.
    """

    key: str
    step: int
    probe: str
    window: int
    documents: int
    seconds: float
    rows: tuple[Row, ...]
    bits: int


@dataclass(frozen=True)
class KeptFeatures:
    """The features that one checkpoint's comparisons are computed from.

    Attributes
    ----------
    key, bits
        As in `FeatureFile`.
    blocks
        (n,): the block of each token.
    features
        (n, d), float32, by place.
    """

    key: str
    bits: int
    blocks: NDArray[np.int64]
    features: Mapping[Place, NDArray[np.float32]]


def kept_path(path: Path) -> Path:
    """File of the kept features that belongs to a file of numbers."""
    return path.with_name(f"kept-{path.name}")


def write_features(path: Path, file: FeatureFile) -> None:
    """Write the numbers of one checkpoint, replacing the file in one go."""
    write_vectors(path, {}, {**vars(file), "rows": list(file.rows)}, version=VERSION)


def read_features(path: Path) -> FeatureFile:
    """Read the numbers of one checkpoint.

    Raises
    ------
    OtherVersionError
        If the file is of another version.
    RankscopeError
        If it is damaged or missing.
    """
    _, about = read_vectors(path, version=VERSION)
    try:
        rows = tuple(dict(row) for row in about["rows"])
        file = FeatureFile(**{**about, "rows": rows})
        if not all(isinstance(text, str) for text in (file.key, file.probe)):
            raise TypeError("it does not hold digests")
        if not all(map(_is_placed, rows)):
            raise TypeError("it does not hold places")
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error
    return file


def _is_placed(row: Row) -> bool:
    """Whether a row names its place or its weight."""
    if "role" in row:
        return all(isinstance(row[name], str) for name in ("role", "component", "name", "status"))
    return type(row["layer"]) is int and isinstance(row["at"], str)


def write_kept(path: Path, kept: KeptFeatures) -> None:
    """Write the kept features of one checkpoint, replacing the file in one go."""
    vectors = {f"{place.layer} {place.at}": one for place, one in kept.features.items()}
    about = {"key": kept.key, "bits": kept.bits}
    write_vectors(path, {"blocks": kept.blocks, **vectors}, about, version=VERSION)


def read_kept(path: Path, key: str) -> KeptFeatures:
    """Read the kept features of one checkpoint.

    Parameters
    ----------
    key
        What they must have been computed from.

    Raises
    ------
    RankscopeError
        If the file is damaged or missing, or belongs to other numbers.
    """
    vectors, about = read_vectors(path, version=VERSION)
    try:
        blocks = vectors.pop("blocks")
        features = {}
        for name, array in vectors.items():
            layer, _, at = name.partition(" ")
            features[Place(int(layer), at)] = array
        if about["key"] != key:
            raise ValueError("it belongs to other numbers")
        if not all(one.ndim == 2 and len(one) == len(blocks) for one in features.values()):
            raise ValueError("it does not hold features of each token")
        return KeptFeatures(key, int(about["bits"]), blocks, features)
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error
