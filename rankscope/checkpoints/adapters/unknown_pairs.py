"""Two tensors that look like the factors of one matrix, under names that no table knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import printable

PAIR, MATRIX = 2, 2
LAST = re.compile(r"(?P<stem>.*?)_?(?P<word>[A-Za-z]+|\d+)")
# Positions by axis, and the parts of a pruned or normed weight, come in pairs that are not factors.
NO_FACTOR = re.compile(r"(.*_)?pos(_.*)?|weight_(orig|mask|[guv])|original\d?", re.IGNORECASE)


def unknown_pairs(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Skip]:
    """A line for every tensor that seems to be half of a matrix, by plain name.

    Two tensors seem so that share a side of at most half of both others, and are either

    * parameters of one module itself, whose names differ in their last word (``left``, ``right``),
      neither with a role in the family; a module has one ``weight``, so that two layers of a
      bottleneck are not of these; or
    * the only matrices below a module that the family knows as a projection, and that has no
      weight of its own (``q_proj.0.weight``, ``q_proj.1.weight``).

    Where this errs, two matrices are not measured, and the lines say how to have them measured; the
    other way round, two factors would be measured as weights.

    Parameters
    ----------
    tensors
        By plain name, without those that are factors by a table.
    """
    matrices = {
        name: tensor
        for name, tensor in tensors.items()
        if len(tensor.shape) == MATRIX and min(tensor.shape) > 1 and tensor.dtype in FLOATS
        if not NO_FACTOR.fullmatch(name.removesuffix(".weight").rpartition(".")[2])
    }
    own: dict[tuple[str, str], list[str]] = {}
    below: dict[str, list[str]] = {}
    for name in matrices:
        module, _, leaf = name.rpartition(".")
        if leaf != "weight":
            match = LAST.fullmatch(leaf)
            own.setdefault((module, match["stem"] if match else leaf), []).append(name)
        parent = module if leaf != "weight" else module.rpartition(".")[0]
        below.setdefault(parent, []).append(name)
    skips: dict[str, Skip] = {}
    for (module, _), names in own.items():
        if len(names) == PAIR and not any(_is_known(name, family) for name in names):
            skips |= _doubts(module, names, matrices)
    for module, names in below.items():
        is_whole = f"{module}.weight" in tensors or module in tensors
        if len(names) == PAIR and module and not is_whole and _is_projection(module, family):
            skips |= _doubts(module, names, matrices)
    return skips


def _is_projection(module: str, family: Family) -> bool:
    return family.role_of(module) != "other" or family.fused_in(module) is not None


def _is_known(name: str, family: Family) -> bool:
    module = name.removesuffix(".weight")
    return _is_projection(module, family) or family.ignores(module)


def _doubts(module: str, names: list[str], tensors: Mapping[str, Tensor]) -> dict[str, Skip]:
    """A line for each of two tensors, and for a weight beside them; none if they share no side."""
    found = next(_products(*((name, tensors[name].shape) for name in names)), None)
    if found is None:
        return {}
    (left, turned_left), (right, turned_right), shape = found
    ends = [name.removeprefix(f"{module}.").removesuffix(".weight") for name in (left, right)]
    turned = [side for side, t in (("left", turned_left), ("right", turned_right)) if t]
    weight = f"{module}.weight" if module else "weight"
    makes = "change" if weight in tensors else "weight"
    table = f"[factors.mine] left = {ends[0]!r}, right = {ends[1]!r}, makes = '{makes}'"
    table += f", transposed = {turned}" if turned else ""
    message = (
        f"{printable(ends[0], limit=60)} and {printable(ends[1], limit=60)} look like the factors "
        f"of one {shape[0]}×{shape[1]} matrix, and are not measured: a family file with "
        f"{printable(table, limit=200)} says that they are"
    )
    held = [*names, *([weight] if weight in tensors else [])]  # with them it is another matrix
    path = tensors[left].paths[0]
    code = "looks-like-factors"
    return {name: Skip(path, tensors[name].name, code, message) for name in held}


def _products(
    first: tuple[str, tuple[int, ...]], second: tuple[str, tuple[int, ...]]
) -> Iterator[tuple[tuple[str, bool], tuple[str, bool], tuple[int, int]]]:
    """Ways to multiply two matrices over a side of at most half of the others."""
    for (left, a), (right, b) in ((first, second), (second, first)):
        for turned_left in (False, True):
            for turned_right in (False, True):
                rows, inner = a[::-1] if turned_left else a
                also, columns = b[::-1] if turned_right else b
                if inner == also and 2 * inner <= min(rows, columns):
                    yield (left, turned_left), (right, turned_right), (rows, columns)
