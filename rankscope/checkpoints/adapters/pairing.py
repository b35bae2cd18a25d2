"""Two factors of one matrix: whether they fit, which way round, and what is beside them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from rankscope.checkpoints.adapters.grouping import Cell
from rankscope.checkpoints.families.factor_tables import FactorTable
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import RankscopeError

MATRIX = 2  # axes
MAGNITUDES = ("lora_magnitude_vector", "magnitude", "m")  # of PEFT, torchtune, MLX


def oriented(left: Tensor, right: Tensor, table: FactorTable) -> tuple[Tensor, Tensor] | None:
    """The factors as (out, r) and (r, in); None if they do not share an inner dimension.

    Names say which of the two has the outputs; shapes say which way round the factors are stored.
    They are taken as in the table, unless only the other way gives an inner dimension that is
    smaller than both outer sides. An error: factors that are stored against the table and whose r
    is not the smallest side are refused.
    """
    if min(len(left.shape), len(right.shape)) < MATRIX:
        return None
    if len(left.shape) > MATRIX or len(right.shape) > MATRIX:
        return _of_convolution(left, right, table)
    stated = _turned(left, "left" in table.transposed), _turned(right, "right" in table.transposed)
    other = (
        _turned(left, "left" not in table.transposed),
        _turned(right, "right" not in table.transposed),
    )
    if _fit(*stated) and (_is_small(*stated) or not (_fit(*other) and _is_small(*other))):
        return stated
    return other if _fit(*other) and _is_small(*other) else None


def fault_in(table: FactorTable, left: Tensor | None, right: Tensor | None) -> str:
    """What is wrong with two factors, with the names of the table; empty if nothing is."""
    there = {end: one for end, one in ((table.left, left), (table.right, right)) if one is not None}
    for missing, other in ((table.left, table.right), (table.right, table.left)):
        if missing not in there:
            return f"has {other} but no {missing}"
    if any(0 in factor.shape for factor in there.values()):
        return "a factor is empty, as when it was saved while its parts were on several devices"
    if left is not None and right is not None and oriented(left, right, table) is None:
        shapes = " and ".join(f"{end} is {list(one.shape)}" for end, one in there.items())
        merged = " (as in loralib's MergedLinear, which does not store which parts of a fused "
        merged += "weight it changes)"
        return f"its factors do not fit: {shapes}{merged if _is_merged(left, right) else ''}"
    odd = next((one.dtype for one in there.values() if one.dtype not in FLOATS), None)
    return "" if odd is None else f"is stored as {odd}, not as plain numbers"


def scale_tensors(table: FactorTable, module: str, adapter: str) -> dict[str, tuple[str, ...]]:
    """Names that the tensor of the scale may have, by kind of scale."""
    kinds = {"alpha": table.alpha, "scaling": table.scaling, "tanh": table.tanh}
    behind = ("", f".{adapter}") if adapter else ("",)
    return {
        kind: tuple(f"{module}.{end}{tail}" for tail in behind)
        for kind, end in kinds.items()
        if end
    }


def magnitude_of(
    cell: Cell, table: FactorTable, pair: tuple[Tensor, Tensor], tensors: Mapping[str, Tensor]
) -> tuple[Tensor | None, str]:
    """Norms that DoRA gives to the rows of the weight, or to the columns of an embedding.

    Returned with the name of their tensor; None and an empty name if there are none.

    Raises
    ------
    RankscopeError
        If their number is not that of the rows or columns of the weight.
    """
    by_column = "embedding" in table.left
    count = pair[1].shape[1] if by_column else pair[0].shape[0]
    behind = ("", ".weight", f".{cell.adapter}", f".{cell.adapter}.weight")
    for name in (f"{cell.module}.{end}{tail}" for end in MAGNITUDES for tail in behind):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if prod(tensor.shape) != count:
            raise RankscopeError(
                f"its magnitudes are {list(tensor.shape)}, not {count}", reason="adapter-incomplete"
            )
        return Part(tensor, Region.of((1, count) if by_column else (count, 1))), name
    return None, ""


def _of_convolution(
    left: Tensor, right: Tensor, table: FactorTable
) -> tuple[Tensor, Tensor] | None:
    """The factors of a convolution: ``right`` has the kernel, one row per inner channel."""
    if table.transposed or prod(left.shape[2:]) != 1 or left.shape[1] != right.shape[0]:
        return None
    return _flat(left), _flat(right)


def _is_merged(left: Tensor, right: Tensor) -> bool:
    """Whether the right factor has several times the rank of the left: one per part."""
    if len(left.shape) != MATRIX or len(right.shape) != MATRIX:
        return False
    parts, rest = divmod(right.shape[0], left.shape[1])
    return parts in (2, 3) and rest == 0


def _flat(tensor: Tensor) -> Tensor:
    if len(tensor.shape) == MATRIX:
        return tensor
    return Part(tensor, Region.of((tensor.shape[0], prod(tensor.shape[1:]))))


def _turned(tensor: Tensor, is_turned: bool) -> Tensor:
    return Part(tensor, Region.of(tensor.shape).transposed()) if is_turned else tensor


def _fit(left: Tensor, right: Tensor) -> bool:
    return left.shape[1] == right.shape[0]


def _is_small(left: Tensor, right: Tensor) -> bool:
    return left.shape[1] < min(left.shape[0], right.shape[1])
