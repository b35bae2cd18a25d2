"""Mutations of JSON documents: types, keys, numbers, nesting, text that is not Unicode."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.reliability.fuzzing import bytes_level, hostile
from tests.reliability.fuzzing.hostile import Raw

Pairs = list[tuple[Any, Any]]  # an object, whose keys may be there twice


class Table(list[Any]):
    """An object as [key, value] pairs."""


def parsed(data: bytes) -> Any:
    """The document, its objects as `Table`."""
    return json.loads(data, object_pairs_hook=lambda pairs: Table(map(list, pairs)))


def dumped(node: Any) -> str:
    """The document as text; `Raw` stands as it is."""
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Table):
        return "{" + ",".join(f"{json.dumps(str(k))}:{dumped(v)}" for k, v in node) + "}"
    if isinstance(node, dict):
        return dumped(Table([key, value] for key, value in node.items()))
    if isinstance(node, list):
        return "[" + ",".join(map(dumped, node)) + "]"
    if type(node) is int and node.bit_length() > 10_000:
        return str(hostile.HUGE_DIGITS)
    return json.dumps(node)


def mutated(rng: Random, data: bytes) -> bytes:
    """The document after one mutation of its structure, sometimes two."""
    document = parsed(data)
    for _ in range(rng.choice((1, 1, 2))):
        document = _mutated(rng, document)
    return dumped(document).encode()


def mutated_lines(rng: Random, data: bytes) -> bytes:
    """A file of one document a line, after one mutation of a line or of their order."""
    lines = data.splitlines() or [b"{}"]
    at = rng.randrange(len(lines))
    what = rng.randrange(6)
    if what == 0:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif what == 1:
        del lines[at]
    elif what == 2:
        lines[at] = bytes_level.mutated(rng, lines[at])
    elif what == 3:
        lines[at] = dumped(hostile.value(rng)).encode()
    else:
        lines[at] = mutated(rng, lines[at])
    return b"\n".join(lines) + b"\n"


def _mutated(rng: Random, document: Any) -> Any:
    places = list(_places(document))
    if not places or rng.random() < 0.03:
        return hostile.value(rng)
    holder, index = rng.choice(places)
    is_table = isinstance(holder, Table)
    at = holder[index] if is_table else holder
    where = 1 if is_table else index
    rng.choice(STRUCTURE if is_table else VALUES)(rng, holder, index, at, where)
    return document


def _places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Every place of a value: what holds it, and its index there."""
    if not isinstance(node, list):
        return
    for index, one in enumerate(node):
        yield node, index
        yield from _places(one[1] if isinstance(node, Table) else one)


Change = Callable[[Random, list[Any], int, list[Any], int], None]


def _other(rng: Random, _holder: list[Any], _index: int, at: list[Any], where: int) -> None:
    at[where] = hostile.value(rng)


def _near(rng: Random, _holder: list[Any], _index: int, at: list[Any], where: int) -> None:
    """A value of the same type, which may make sense."""
    old = at[where]
    if type(old) is int:
        at[where] = rng.choice((old - 1, old + 1, -old, 2 * old, old // 2, old + 0.5, str(old)))
    elif isinstance(old, str):
        at[where] = rng.choice((hostile.name(rng), old + ".x", old[1:], old.upper(), old * 2))
    elif isinstance(old, float):
        at[where] = rng.choice((-old, old * 1e300, int(old), str(old), Raw("NaN")))
    else:
        at[where] = rng.choice(([old], {"a": old}, str(old), None))


def _drop(_rng: Random, holder: list[Any], index: int, _at: list[Any], _where: int) -> None:
    del holder[index]


def _twice(rng: Random, holder: list[Any], index: int, _at: list[Any], _where: int) -> None:
    one = holder[index]
    holder.insert(rng.randrange(len(holder) + 1), list(one) if isinstance(one, list) else one)


def _swap(rng: Random, holder: list[Any], index: int, _at: list[Any], _where: int) -> None:
    other = rng.randrange(len(holder))
    holder[index], holder[other] = holder[other], holder[index]


def _swap_values(rng: Random, holder: list[Any], index: int, at: list[Any], where: int) -> None:
    other = holder[rng.randrange(len(holder))]
    at[where], other[1] = other[1], at[where]


def _rename(rng: Random, holder: list[Any], index: int, at: list[Any], _where: int) -> None:
    at[0] = rng.choice((hostile.name(rng), f"{at[0]}x", str(at[0])[:-1], holder[0][0]))


VALUES: tuple[Change, ...] = (_other, _near, _near, _drop, _twice, _swap)
STRUCTURE: tuple[Change, ...] = (*VALUES, _swap_values, _rename, _rename)
