"""Cutting a stream of items into groups of about one size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def iter_groups(
    items: Iterable[Item], size_of: Callable[[Item], float], *, size: float
) -> Iterator[list[Item]]:
    """Yield the items in groups, each of which ends with the item that brings it to ``size``.

    Parameters
    ----------
    items
        Taken one at a time, in order; no more of them than the current group holds.
    size_of
        Size of an item. To limit the number of items too, let it return at least ``size`` divided
        by that number.
    size
        What the sizes of a group add up to, or more; the last group may have less.
    """
    group, total = list[Item](), 0.0
    for item in items:
        group.append(item)
        total += size_of(item)
        if total >= size:
            yield group
            group, total = [], 0.0
    if group:
        yield group
