"""How far two models are from each other, matrix by matrix, and whether two adapters interfere.

Legend: x and y are the matrices of the two models; an adapter is B·A, whose columns lie in the
space of B (where it writes) and whose rows in that of A (what it reads).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.run import Checkpoint
from rankscope.components.component import weight_of
from rankscope.components.recipes import Products
from rankscope.errors import RankscopeError
from rankscope.spectra.bases import Basis, basis_of
from rankscope.spectra.chance import random_overlap, random_share_deviation
from rankscope.spectra.matrices import Dense, LowRank, norm_of

COLUMNS = (
    *("layer", "role", "expert", "name", "component", "measure"),
    *("value", "error", "null", "null_deviation"),
)
MEASURES = ("relative_distance", "cosine", "column_overlap", "row_overlap")


@dataclass(frozen=True)
class Known:
    """A matrix, and a bound in the Frobenius norm on what rounding did to it."""

    values: NDArray[np.float64]
    error: float

    @property
    def norm(self) -> float:
        """Its Frobenius norm."""
        return norm_of(self.values).value

    def minus(self, other: Known) -> Known:
        """The difference of two matrices."""
        return Known(self.values - other.values, self.error + other.error)


def distances(
    a: Checkpoint, b: Checkpoint, *, start: tuple[Checkpoint, Checkpoint] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Distances of the matrices that two checkpoints both have, and remarks on what is left out.

    Parameters
    ----------
    a, b
        The checkpoints.
    start
        Where their runs began: where both did from one matrix, the changes since are compared.

    Returns
    -------
    A table with the columns `COLUMNS`, one row per matrix and measure:

    - of component ``weight``: ``relative_distance``, ‖y − x‖/‖x‖ in the Frobenius norm, which is √2
      for unrelated matrices of one size, and ``cosine``;
    - of ``cumulative_update``: ``cosine`` of the changes since a common start;
    - of ``adapter``, of two adapters on one base: ``cosine`` of their products, and
      ``column_overlap`` and ``row_overlap``, ‖UᵀU′‖²_F over the smaller rank.

    ``error`` bounds what arithmetic and storage may have done; ``null`` is what two unrelated
    matrices or subspaces would give, with its standard deviation.
    """
    here, there = a.contents, b.contents
    first = None if start is None else (start[0].contents, start[1].contents)
    rows: list[dict[str, object]] = []
    notes: dict[str, int] = {}
    for name, parameter in here.parameters.items():
        other = there.parameters.get(name)
        if other is None or parameter.shape != other.shape:
            _count(notes, "are in one of the models only, or of different shapes")
            continue
        place = {key: getattr(parameter, key) for key in ("layer", "role", "expert", "name")}
        try:
            rows += [place | row for row in _of_weights(parameter, other, first)]
            if _is_one_base(parameter, other, here, there):
                rows += [place | row for row in _of_adapters(parameter, other)]
            elif parameter.adapter is not None and other.adapter is not None:
                _count(notes, "have adapters on different bases, which are not compared")
        except RankscopeError as error:
            _count(notes, f"cannot be read ({error})")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"layer": "Int64", "expert": "Int64"})
    return table, [f"{count} matrices {text}" for text, count in notes.items()]


def _count(notes: dict[str, int], text: str) -> None:
    notes[text] = notes.get(text, 0) + 1


def _weight(parameter: Parameter | None) -> Known | None:
    """The weight that a model multiplies with, if it is known and finite."""
    weight = None if parameter is None else weight_of(parameter)
    if weight is None:
        return None
    matrix = weight.read()
    dense = matrix if isinstance(matrix, Dense) else matrix.dense()
    values = np.asarray(dense.values, np.float64)
    if not np.isfinite(values).all() or not values.size:
        return None
    side = math.sqrt(min(values.shape))
    return Known(values, side * (dense.rounding.floor + dense.error))


def _of_weights(
    parameter: Parameter, other: Parameter, first: tuple[Contents, Contents] | None
) -> Iterator[dict[str, object]]:
    x, y = _weight(parameter), _weight(other)
    if x is None or y is None or not x.norm or not y.norm:
        return
    moved, size = y.minus(x), x.norm
    distance = moved.norm / size
    least = size - x.error
    most = (moved.norm + moved.error) / least if least > 0 else math.inf
    yield {
        "component": "weight",
        "measure": "relative_distance",
        "value": distance,
        "error": most - distance,
        "null": math.hypot(1, y.norm / size),
        "null_deviation": math.nan,
    }
    yield _cosine("weight", x, y)
    if first is None:
        return
    before = [_weight(contents.parameters.get(parameter.name)) for contents in first]
    if before[0] is None or before[1] is None:
        return
    if np.array_equal(before[0].values, before[1].values):
        changes = x.minus(before[0]), y.minus(before[0])
        if all(change.norm > change.error for change in changes):
            yield _cosine("cumulative_update", *changes)


def _cosine(component: str, x: Known, y: Known) -> dict[str, object]:
    """⟨x, y⟩/(‖x‖‖y‖), and what it is of independent matrices of this shape."""
    return {
        "component": component,
        "measure": "cosine",
        "value": float(np.vdot(x.values / x.norm, y.values / y.norm)),
        "error": 2 * (x.error / x.norm + y.error / y.norm),
        "null": 0.0,
        "null_deviation": 1 / math.sqrt(x.values.size),
    }


def _is_one_base(a: Parameter, b: Parameter, here: Contents, there: Contents) -> bool:
    """Whether two adapters change one matrix: the same values, or bases of one name."""
    if a.adapter is None or b.adapter is None:
        return False
    if a.tensor is None and b.tensor is None:
        return bool(here.base_named) and here.base_named == there.base_named
    if a.tensor is None or b.tensor is None:
        return False
    return np.array_equal(a.tensor.read(), b.tensor.read())


def _of_adapters(a: Parameter, b: Parameter) -> Iterator[dict[str, object]]:
    products = [Products((p.adapter,)).factored() for p in (a, b) if p.adapter is not None]
    bases = [basis_of(one, min(one.inner, *one.shape)) for one in products]
    if bases[0] is None or bases[1] is None:
        return  # zero or not finite
    x, y = products
    sizes = [one.norms()[0] for one in products]
    errors = [
        (size.error + math.sqrt(one.inner) * float(one.floors[0])) / size.value
        for one, size in zip(products, sizes, strict=True)
    ]
    within = np.vdot(x.left.T @ y.left, x.right @ y.right.T)
    yield {
        "component": "adapter",
        "measure": "cosine",
        "value": float(within) / (sizes[0].value * sizes[1].value),
        "error": 2 * sum(errors),
        "null": 0.0,
        "null_deviation": _null_of_products(x, y),
    }
    yield from _overlaps(bases[0], bases[1])


def _null_of_products(x: LowRank, y: LowRank) -> float:
    """Standard deviation of the cosine of x and y, one of them turned at random."""
    return 1 / math.sqrt(x.shape[0] * x.shape[1])


def _overlaps(a: Basis, b: Basis) -> Iterator[dict[str, object]]:
    ranks = [
        int((one.lower > max(one.noise_floor, one.residual(one.count))).sum()) for one in (a, b)
    ]
    ranks = [min(rank, one.count) for rank, one in zip(ranks, (a, b), strict=True)]
    if not all(ranks):
        return
    (p, q), least = ranks, min(ranks)
    sines = [one.error(rank) + one.noise(rank) for one, rank in zip((a, b), ranks, strict=True)]
    for measure, left, right in (
        ("column_overlap", a.left, b.left),
        ("row_overlap", a.right, b.right),
    ):
        dimensions = len(left)
        yield {
            "component": "adapter",
            "measure": measure,
            "value": float(np.linalg.norm(left[:, :p].T @ right[:, :q]) ** 2) / least,
            "error": (sines[0] * q + sines[1] * p) / least,
            "null": random_overlap(max(ranks), dimensions),
            "null_deviation": random_overlap_deviation(p, q, dimensions) / least,
        }


def random_overlap_deviation(p: int, q: int, dimensions: int) -> float:
    """Standard deviation of ‖UᵀU′‖²_F of random subspaces of p and q dimensions."""
    if not q:
        return 0.0
    shares = np.zeros(dimensions)
    shares[:q] = 1 / q
    return q * random_share_deviation(p, shares)
