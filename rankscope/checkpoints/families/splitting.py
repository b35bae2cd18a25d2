"""The parts of a fused matrix: which rows each has, and the parameter of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rankscope.checkpoints.adapters.composed_tensors import KhatriRao, Product, ScaledRows
from rankscope.checkpoints.contents import Adapter, Delta, Heads, Parameter
from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import Axis, Tensor

Rows = tuple[int, tuple[Axis, ...]]  # the first row; size and stride in rows of every axis


def rows_of(fused: Fused, shape: tuple[int, ...], heads: Heads | None) -> Mapping[str, Rows] | None:
    """Rows of each part of a matrix of this shape, which is (outputs, inputs).

    Parameters
    ----------
    heads
        Those of the model; None if unknown.

    Returns
    -------
    First row and axes of every part; None if shape and heads do not determine them.
    """
    rows, columns = shape
    if rows % fused.times:
        return None
    each = rows // fused.times
    if fused.split == "blocks":
        within = _blocks(_sizes(fused.parts, rows, columns, heads), fused.times)
    else:
        within = _SPLITS[fused.split](fused.parts, each, heads)
    if within is None or fused.times == 1:
        return within
    return {part: (start, ((fused.times, each), *axes)) for part, (start, axes) in within.items()}


def _blocks(sizes: Mapping[str, int] | None, times: int) -> Mapping[str, Rows] | None:
    """All rows of one part, then all of the next; the sizes are those of all repetitions."""
    if sizes is None or any(size % times for size in sizes.values()):
        return None
    found, start = {}, 0
    for part, size in sizes.items():
        found[part] = (start, ((size // times, 1),))
        start += size // times
    return found


def _sizes(
    parts: tuple[str, ...], rows: int, columns: int, heads: Heads | None
) -> dict[str, int] | None:
    """Rows of every part: q, k and v as the heads need, the others in equal shares.

    If the heads are unknown, q, k and v each have as many rows as there are columns, provided that
    this fills the matrix. Other thirds may hold rows of two parts, since keys may have fewer heads.
    """
    own = {part: _own_rows(part, columns, heads) for part in parts if part in ("q", "k", "v")}
    rest, others = rows - sum(own.values()), len(parts) - len(own)
    if rest < 0 or (rest % others if others else rest):
        return None
    return {part: own[part] if part in own else rest // others for part in parts}


def _own_rows(part: str, columns: int, heads: Heads | None) -> int:
    if heads is None:
        return columns
    return (heads.count if part == "q" else heads.kv_count) * heads.size


def _heads(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """For each head, one block of every part."""
    if heads is None or rows != heads.count * heads.size * len(parts):
        return None
    each = heads.size * len(parts)
    return {
        part: (i * heads.size, ((heads.count, each), (heads.size, 1)))
        for i, part in enumerate(parts)
    }


def _groups(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """For each key-value head, the blocks of its queries, its key and its value."""
    if heads is None or heads.count % heads.kv_count or set(parts) != {"q", "k", "v"}:
        return None
    queries = heads.count // heads.kv_count
    each = (queries + 2) * heads.size
    if rows != heads.kv_count * each:
        return None
    found, start = {}, 0
    for part in parts:
        size = (queries if part == "q" else 1) * heads.size
        found[part] = (start, ((heads.kv_count, each), (size, 1)))
        start += size
    return found


def _alternate(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """The rows of the parts alternate."""
    if rows % len(parts):
        return None
    return {part: (i, ((rows // len(parts), len(parts)),)) for i, part in enumerate(parts)}


def _equal(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """All rows of one part, then all of the next, equally many of each."""
    if rows % len(parts):
        return None
    each = rows // len(parts)
    return {part: (i * each, ((each, 1),)) for i, part in enumerate(parts)}


_SPLITS = {
    "equal": _equal,
    "flat": _equal,
    "heads": _heads,
    "groups": _groups,
    "alternate": _alternate,
}


def parts_of_fused(one: Parameter, family: Family) -> Iterator[Parameter]:
    """The parts of a fused parameter; the parameter itself if it is not fused or not certain."""
    fused = family.fused_in(one.module)
    one = _unrolled(one, fused)
    is_laid_out = not isinstance(one.tensor, Part) or len(one.tensor.region.rows) == 1
    rows = rows_of(fused, one.shape, one.heads) if fused is not None and is_laid_out else None
    if fused is None or rows is None:
        yield one
        return
    for role, which in rows.items():
        yield one._replace(
            name=f"{one.name}[{role}]",
            role=fused.role or role,
            tensor=None if one.tensor is None else _rows(one.tensor, which),
            adapter=None if one.adapter is None else _rows_of_delta(one.adapter, which),
        )


def _unrolled(one: Parameter, fused: Fused | None) -> Parameter:
    """A wide matrix that holds its parts one after the other, laid out one below the other."""
    if fused is None or fused.split != "flat" or one.tensor is None or one.adapter is not None:
        return one
    rows, columns = one.shape
    if isinstance(one.tensor, Part) or columns % len(fused.parts):
        return one
    each = columns // len(fused.parts)
    return one._replace(tensor=Part(one.tensor, Region.of((rows * len(fused.parts), each))))


def _rows(tensor: Tensor, which: Rows) -> Tensor:
    """Some rows of a matrix; those of a product are a product."""
    if isinstance(tensor, Product):
        return replace(tensor, left=_rows(tensor.left, which))
    if isinstance(tensor, KhatriRao) and not tensor.by_rows:
        return KhatriRao(_rows(tensor.first, which), _rows(tensor.second, which))
    if isinstance(tensor, ScaledRows):
        return ScaledRows(_rows(tensor.matrix, which), _rows(_column(tensor.numbers), which))
    if isinstance(tensor, Part):
        return Part(tensor.whole, tensor.region.part(*which))
    return Part(tensor, Region.of(tensor.shape).part(*which))


def _column(numbers: Tensor) -> Tensor:
    """Numbers as a column."""
    if len(numbers.shape) == 2:
        return numbers
    return Part(numbers, Region.of((math.prod(numbers.shape), 1)))


def _rows_of_delta(adapter: Delta, which: Rows) -> Delta:
    """The delta of these rows: rows of B with all of A, or whole blocks of a Kronecker product."""
    if isinstance(adapter, Adapter):
        magnitude = adapter.magnitude
        if magnitude is not None and magnitude.shape[0] > 1:
            magnitude = _rows(magnitude, which)
        return replace(adapter, lora_B=_rows(adapter.lora_B, which), magnitude=magnitude)
    start, axes = which
    block = adapter.second.shape[0]
    if len(axes) == 1 and start % block == axes[0][0] % block == 0:
        rows = start // block, ((axes[0][0] // block, 1),)
        return replace(adapter, first=_rows(adapter.first, rows))
    return replace(adapter, rows=which)
