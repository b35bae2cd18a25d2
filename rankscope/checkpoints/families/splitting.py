"""The rows of a fused matrix that belong to each of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from rankscope.checkpoints.contents import Heads
from rankscope.checkpoints.families.family import Fused
from rankscope.checkpoints.tensors import Axis

Rows = tuple[int, tuple[Axis, ...]]  # the first row; size and stride in rows of every axis


def rows_of(fused: Fused, rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """Rows of each part of a matrix with so many rows; None if its shape does not allow them.

    Parameters
    ----------
    heads
        Of the model; None where they are not known, which blocks of equal size can do without.
    """
    if rows % fused.times:
        return None
    within = _SPLITS[fused.split](fused.parts, rows // fused.times, heads)
    if within is None or fused.times == 1:
        return within
    repeat = (fused.times, rows // fused.times)
    return {part: (start, (repeat, *axes)) for part, (start, axes) in within.items()}


def _blocks(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """All rows of one part after all of another."""
    sizes = [_own_rows(part, heads) for part in parts]
    if None in sizes or sum(size or 0 for size in sizes) != rows:
        if rows % len(parts) or (heads is not None and heads.kv_count != heads.count):
            return None
        sizes = [rows // len(parts)] * len(parts)
    found, start = {}, 0
    for part, size in zip(parts, sizes, strict=True):
        found[part] = (start, ((size or 0, 1),))
        start += size or 0
    return found


def _own_rows(part: str, heads: Heads | None) -> int | None:
    if heads is None or part not in ("q", "k", "v"):
        return None
    return (heads.count if part == "q" else heads.kv_count) * heads.size


def _heads(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """One block of every part for each head."""
    if heads is None or rows != heads.count * heads.size * len(parts):
        return None
    each = heads.size * len(parts)
    return {
        part: (i * heads.size, ((heads.count, each), (heads.size, 1)))
        for i, part in enumerate(parts)
    }


def _groups(parts: tuple[str, ...], rows: int, heads: Heads | None) -> Mapping[str, Rows] | None:
    """For each key-value head the blocks of its queries, of its key and of its value."""
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
    """Rows take turns."""
    if rows % len(parts):
        return None
    return {part: (i, ((rows // len(parts), len(parts)),)) for i, part in enumerate(parts)}


_SPLITS = {"blocks": _blocks, "heads": _heads, "groups": _groups, "alternate": _alternate}
