"""A probe run through a network: how what each weight reads lies in its directions.

Features are summed along the directions of each matrix, block by block of documents, and their
second moment once over all blocks. Matrices and moments that do not fit into the memory for sums
are left for another pass over the probe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rankscope.components.component import Component
from rankscope.errors import RankscopeError
from rankscope.representations.feature_sums import BLOCKS, FeatureSums
from rankscope.representations.input_energy import (
    INPUT_ENERGY_COLUMNS,
    DirectedSums,
    InputMoments,
    input_energy,
)
from rankscope.representations.weight_directions import WeightDirections
from rankscope.representing.feature_files import Row
from rankscope.representing.network_features import (
    PARTS,
    fill,
    network_of,
    part_of,
    require_vocabulary,
    sums_budget,
    sums_of,
    within_budget,
)
from rankscope.representing.places import Tap
from rankscope.representing.probe_windows import Probe
from rankscope.representing.weight_inputs import Reader
from rankscope.scoring.text_model import ShareDone, TextModel
from rankscope.spectra.matrices import Decomposable, Dense, LowRank

# Of its own energy that the leading directions of a matrix hold; 1 for all that it has.
WEIGHT_SHARES: Mapping[str, tuple[float, ...]] = {
    "weight": (0.5, 0.9),
    "update": (0.5, 0.9),
    "adapter": (1.0,),
}


def energies(
    model: TextModel, readers: Sequence[Reader], probe: Probe, *, progress: ShareDone | None = None
) -> Iterator[Row]:
    """Run a probe, and yield a row for each matrix and share of its own energy.

    Raises
    ------
    RankscopeError
        If a token id is outside the model's vocabulary.
    """
    network = network_of(model)
    require_vocabulary(model, probe)
    for reader in readers:
        if reader.tap is None:
            for one in reader.matrices:
                yield from _rows_without(one, "no-input")
    tapped = [(reader.tap, reader) for reader in readers if reader.tap is not None]
    sizes = [_size(reader) for _, reader in tapped]
    passes = list(within_budget(tapped, sizes, sums_budget(network))) if tapped else []
    for number, some in enumerate(passes):
        readings = {tap: _Reading.begun(tap, reader) for tap, reader in some}
        listeners = {tap: one.add for tap, one in readings.items()}
        fill(model, listeners, probe, part_of(progress, number, len(passes)))
        del listeners
        while readings:
            _, reading = readings.popitem()
            yield from reading.rows()


def _size(reader: Reader) -> int:
    """Bytes of the sums, and of the directions of each matrix."""
    dimensions = reader.shape[1]
    directions = min(reader.shape) * len(reader.matrices)
    return 8 * dimensions * ((1 + PARTS) * dimensions + directions)


@dataclass
class _Matrix:
    """A matrix, and the sums along its directions by block."""

    component: Component
    directions: WeightDirections
    blocks: list[DirectedSums]


@dataclass
class _Reading:
    """The matrices that read one input, while its features come in."""

    tap: Tap
    total: FeatureSums
    matrices: list[_Matrix]
    without: list[Row]

    @classmethod
    def begun(cls, tap: Tap, reader: Reader) -> _Reading:
        """Nothing is summed yet; the matrices are read, and those that cannot be, have a row."""
        empty = FeatureSums.empty(reader.shape[1])
        found = cls(tap, empty, [], [])
        for component in reader.matrices:
            try:
                directions = _directions(component.recipe.read())
            except RankscopeError as error:
                found.without += _rows_without(component, "unreadable", str(error))
                continue
            if directions is None:
                found.without += _rows_without(component, "nonfinite")
                continue
            blocks = [DirectedSums.of(empty, directions) for _ in range(BLOCKS)]
            found.matrices.append(_Matrix(component, directions, blocks))
        return found

    def add(self, block: int, features: Tensor, _: Tensor) -> None:
        """Take the features of one batch."""
        sums = sums_of(features)
        self.total += sums
        for one in self.matrices:
            new = DirectedSums.of(sums, one.directions)
            one.blocks[block] = one.blocks[block].plus(new, one.directions)

    def rows(self) -> Iterator[Row]:
        """The numbers of every matrix."""
        yield from self.without
        inputs = InputMoments(self.total)
        for one in self.matrices:
            for share in WEIGHT_SHARES[one.component.kind]:
                k = one.directions.holding(share)
                found = input_energy(one.directions, one.blocks, inputs=inputs, k=k)
                yield _place(one.component, share) | found.row()


def _directions(matrix: Decomposable) -> WeightDirections | None:
    """Those of a matrix; None where an entry is not finite."""
    if isinstance(matrix, LowRank):
        if not (np.isfinite(matrix.left).all() and np.isfinite(matrix.right).all()):
            return None
        error = float(matrix.floor) + float(matrix.error)
        return WeightDirections.of_product(matrix.left, matrix.right, error=error)
    if isinstance(matrix, Dense):
        if not np.isfinite(matrix.values).all():
            return None
        return WeightDirections.of(matrix.values, error=matrix.rounding.floor + matrix.error)
    raise RankscopeError("is a Kronecker product, whose directions are not measured")


def _rows_without(component: Component, status: str, why: str = "") -> list[Row]:
    """Rows that say why there is no number."""
    empty: Row = dict.fromkeys(INPUT_ENERGY_COLUMNS, None)
    return [
        _place(component, share) | empty | {"status": status, "why": why}
        for share in WEIGHT_SHARES[component.kind]
    ]


def _place(component: Component, share: float) -> Row:
    return {
        "layer": component.layer,
        "role": component.role,
        "component": component.kind,
        "name": component.name,
        "since": component.since,
        "span": component.window,
        "weight_share": share,
    }
