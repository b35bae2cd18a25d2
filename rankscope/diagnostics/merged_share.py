"""How much of each merge is in the weights: W after − W before against scale·B·A.

The share is c = ⟨ΔW, D⟩/⟨D, D⟩ of the change ΔW along what should have been merged, D. An entry of
W after is rounded by at most half a unit in its last place h, so |c − 1| ≤ Σ h|D|/Σ D² where the
whole of D was merged; the products may have been formed in the same format, which adds a few units
of it. What is further from 1 was not merged as it should have been, whatever the format.

A block of rows of each matrix is read; every row of D is that row of B times A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Adapter, Parameter
from rankscope.checkpoints.tensors import Tensor
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.restarts import Restart
from rankscope.spectra.formats import format_of
from rankscope.spectra.rounding import deviations

ENTRIES = 2**20  # of each matrix that are read
UNITS = 4  # of relative rounding: of both factors, the product and the scale
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class MergedShare:
    """How much of what should have been merged is in one weight.

    Attributes
    ----------
    share, bound
        c, and how far rounding may take it from the true one.
    rest
        ‖ΔW − c·D‖/‖D‖: change in other directions, over what should have been merged.
    lost
        ‖ΔW − D‖/‖D‖.
    unmoved
        Share of the entries that D changes in which the weight did not change at all.
    size
        ‖D‖ over that of the weight before.
    scale
        Of the adapter.
    """

    name: str
    share: float
    bound: float
    rest: float
    lost: float
    unmoved: float
    size: float
    scale: float


def iter_shares(evidence: Evidence, restart: Restart) -> Iterator[MergedShare]:
    """The share of every weight that a restart should have changed and that can be read."""
    for earlier, later in restart.pairs:
        deltas = [merged[later.module] for merged in restart.merged if later.module in merged]
        if deltas and all(one.shape == later.shape for one in deltas):
            share = _share(evidence, restart, earlier, later, deltas)
            if share is not None:
                yield share


def _share(
    evidence: Evidence,
    restart: Restart,
    earlier: Parameter,
    later: Parameter,
    deltas: list[Adapter],
) -> MergedShare | None:
    """None where nothing was to be merged, or a tensor cannot be read."""
    assert earlier.tensor is not None
    assert later.tensor is not None
    rows = _rows(later.shape)
    before = _block(evidence, earlier.tensor, rows, restart.before.step)
    after = _block(evidence, later.tensor, rows, restart.after.step)
    products = [_product(evidence, delta, rows, restart.step) for delta in deltas]
    if not before.size or not after.size or any(not one.size for one in products):
        return None
    wanted = np.sum(products, axis=0)
    square = float((wanted**2).sum())
    if not 0 < square < math.inf or not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    found = format_of(after, later.tensor.dtype)
    half = deviations(after, found) * math.sqrt(3)  # half a unit in the last place
    change = after.astype(np.float64) - before
    share = float((change * wanted).sum()) / square
    off = len(deltas) * float((np.abs(wanted) * half).sum()) / square
    moved, norm = wanted != 0, math.sqrt(square)
    return MergedShare(
        later.name,
        share,
        off + UNITS * 2.0**-found.significant_bits,
        float(np.linalg.norm(change - share * wanted)) / norm,
        float(np.linalg.norm(change - wanted)) / norm,
        float((change[moved] == 0).mean()),
        norm / (float(np.linalg.norm(before.astype(np.float64))) or math.inf),
        float(deltas[-1].scale or 0.0),
    )


def _rows(shape: tuple[int, ...]) -> slice:
    """A block of rows from the middle."""
    count = min(shape[0], max(1, ENTRIES // max(shape[1], 1)))
    start = (shape[0] - count) // 2
    return slice(start, start + count)


def _block(evidence: Evidence, tensor: Tensor, rows: slice, step: int) -> NDArray[np.floating]:
    width = tensor.shape[1]
    read = evidence.read(
        lambda: tensor.elements(rows.start * width, rows.stop * width), tensor, step
    )
    return read.reshape(-1, width)


def _product(evidence: Evidence, adapter: Adapter, rows: slice, step: int) -> Matrix:
    """These rows of scale·B·A; empty where a factor cannot be read."""
    left = _block(evidence, adapter.lora_B, rows, step).astype(np.float64)
    right = _block(evidence, adapter.lora_A, slice(0, adapter.rank), step).astype(np.float64)
    if not left.size or not right.size:
        return np.empty((0, 0))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((adapter.scale or 0.0) * left @ right)
