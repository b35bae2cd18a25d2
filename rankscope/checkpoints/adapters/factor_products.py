"""What the factors of a module make: a delta, a weight, or factors that are measured alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import prod

from rankscope.checkpoints.adapters.composed_tensors import (
    PlusSparse,
    Product,
    ScaledRows,
    holds_whole_numbers,
)
from rankscope.checkpoints.adapters.grouping import Cell
from rankscope.checkpoints.adapters.pairing import fault_in, magnitude_of, oriented, scale_tensors
from rankscope.checkpoints.adapters.scaling import Form, Scales, scale_in
from rankscope.checkpoints.contents import Adapter, Class, Delta
from rankscope.checkpoints.families.factor_tables import FactorTable
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError


@dataclass
class Made:
    """What one table makes of the tensors of a module.

    Attributes
    ----------
    delta, weight, factors
        One of these: what is added to the weight, the weight itself, or factors by name.
    used
        Names of the tensors that it is made of.
    aside
        Name, class and reason of other tensors that belong to it.
    """

    delta: Delta | None = None
    weight: Tensor | None = None
    factors: dict[str, Tensor] = field(default_factory=dict)
    used: tuple[str, ...] = ()
    aside: list[tuple[str, Class, str]] = field(default_factory=list)

    def put_aside(self, names: Iterable[str], kind: Class, reason: str) -> None:
        """Record tensors that belong to it without being part of the matrix."""
        self.aside += [(name, kind, reason) for name in names]


def made_of_pair(
    cell: Cell,
    module: str,
    table: FactorTable,
    *,
    tensors: Mapping[str, Tensor],
    scales: Scales,
) -> Made:
    """What two factors and the tensors beside them make, as the table says.

    Parameters
    ----------
    module
        Path in the model, which may differ from that of the cell.
    tensors
        All tensors that are left, by plain name.

    Raises
    ------
    RankscopeError
        If the factors do not fit each other, or a part of the weight is missing.
    """
    left, right = cell.tensors[table.left], cell.tensors[table.right]
    fault = fault_in(table, left, right)
    pair = None if fault else oriented(left, right, table)
    if pair is None:  # `fault` says why
        raise RankscopeError(fault, reason="adapter-incomplete")
    if table.between:
        names = cell.names[table.left], cell.names[table.right]
        return Made(factors=dict(zip(names, pair, strict=True)), used=names)
    made = Made(used=tuple(cell.names[end] for end in table.needed))
    rank = pair[1].shape[0]
    scale = _scale(cell, module, table, tensors=tensors, scales=scales, made=made, rank=rank)
    made.put_aside(
        _spare(cell, table, tensors),
        "no linear map",
        f"a spare factor of {module} that is not in use",
    )
    left, right = pair
    if table.diagonal:
        right = _scaled_rows(right, cell.tensors[table.diagonal])
    if table.makes == "weight" and scale is not None:
        made.weight = _whole(cell, table, Product(left, right, scale))
        return made
    # Only the product of a weight whose scale is unknown is measured.
    beside = [cell.names[end] for end in table.sparse]
    made.put_aside(beside, "part of", f"the weight of {module}")
    magnitude, name = magnitude_of(cell, table, pair, tensors)
    made.delta = Adapter(right, left, scale, magnitude)
    made.used = tuple(name for name in (*made.used, name) if name and name not in beside)
    return made


def _scale(
    cell: Cell,
    module: str,
    table: FactorTable,
    *,
    tensors: Mapping[str, Tensor],
    scales: Scales,
    made: Made,
    rank: int,
) -> float | None:
    """Scale of a product, as a tensor, the table, or a file beside the weights states it."""
    for kind, names in scale_tensors(table, cell.module, cell.adapter).items():
        for name in names:
            if name in tensors:
                made.put_aside([name], "part of", f"the adapter of {module}")
                return scale_in(kind, tensors[name], rank=rank)
    if table.scale is not None:
        return float(table.scale)
    form: Form = "adalora" if table.diagonal else "product"
    return scales.of(module, rank=rank, form=form)


def _spare(cell: Cell, table: FactorTable, tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors in the module that do not belong to its matrix."""
    above = f"{cell.module}."
    below = (name for name in tensors if table.spare and name.startswith(above))
    return [
        name
        for name in below
        if any(fnmatchcase(name.removeprefix(above), pattern) for pattern in table.spare)
    ]


def _whole(cell: Cell, table: FactorTable, product: Product) -> Tensor:
    """A weight that is a product, with its sparse part if there is one."""
    if not table.sparse:
        return product
    positions, values = (cell.tensors[end] for end in table.sparse)
    if not holds_whole_numbers(positions) or prod(positions.shape) != prod(values.shape):
        message = "its sparse part does not have one position per value"
        raise RankscopeError(message, reason="adapter-incomplete")
    return PlusSparse(product, positions, values)


def _scaled_rows(matrix: Tensor, numbers: Tensor) -> ScaledRows:
    if prod(numbers.shape) != matrix.shape[0]:
        message = (
            f"its numbers between the factors are {list(numbers.shape)}, not {matrix.shape[0]}"
        )
        raise RankscopeError(message, reason="adapter-incomplete")
    return ScaledRows(matrix, numbers)
