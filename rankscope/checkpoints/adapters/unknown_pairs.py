"""Two tensors that look like the factors of one matrix, under names that no table knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.neighbours import Neighbours
from rankscope.checkpoints.families.no_maps import why_no_map
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import printable

PAIR, MATRIX = 2, 2
WORD = re.compile(r"[A-Za-z]+|\d+")
# What ends so is a map or a table by itself: ``image_projection`` beside ``text_projection``.
WHOLE = ("proj", "projection", "weight", "head", "emb", "embed", "embedding", "embeddings", "table")
# Parts of a pruned or normed weight, and weights of torch's recurrent layers, come in pairs that
# are not factors.
NO_FACTOR = re.compile(
    r"weight_(orig|mask|[guv])|original\d?|weight_[ih][hr](_l\d+)?(_reverse)?", re.IGNORECASE
)


def unknown_pairs(tensors: Mapping[str, Tensor], family: Family) -> dict[str, Skip]:
    """A line for every tensor that seems to be half of a matrix, by plain name.

    Two tensors seem so that share a side of at most half of both others, and are either

    * parameters of one module itself, whose names differ in one word (``left_factor`` and
      ``right_factor``), neither with a role in the family, and not both with a bias, which a
      product has once; a module has one ``weight``, so that two layers of a bottleneck are not of
      these; or
    * the only matrices below a module that the family knows as a projection, and that has no
      weight of its own (``q_proj.0.weight``, ``q_proj.1.weight``).

    Where this errs, two matrices are not measured, and the lines say how to have them measured; the
    other way round, two factors would be measured as weights.

    Parameters
    ----------
    tensors
        By plain name, without those that are factors by a table.
    """
    near = Neighbours(tensors)
    matrices = {
        name: tensor
        for name, tensor in tensors.items()
        if len(tensor.shape) == MATRIX and min(tensor.shape) > 1 and tensor.dtype in FLOATS
        if not NO_FACTOR.fullmatch(name.removesuffix(".weight").rpartition(".")[2])
        if not why_no_map(name, tensor, near)
    }
    own: dict[tuple[str, str], list[str]] = {}
    below: dict[str, list[str]] = {}
    for name in matrices:
        module, _, leaf = name.rpartition(".")
        if leaf != "weight":
            ends_whole = leaf.rpartition("_")[2] in WHOLE
            for word in WORD.finditer(leaf):
                if ends_whole and word.end() < len(leaf):
                    continue
                but_it = f"{leaf[: word.start()]}*{leaf[word.end() :]}"
                own.setdefault((module, but_it), []).append(name)
        parent = module if leaf != "weight" else module.rpartition(".")[0]
        below.setdefault(parent, []).append(name)
    skips: dict[str, Skip] = {}
    for (module, _), names in own.items():
        is_pair = len(names) == PAIR and not all(_has_bias(name, tensors) for name in names)
        if is_pair and not any(_is_known(name, family) for name in names):
            skips |= _doubts(module, names, matrices)
    for module, names in below.items():
        is_whole = f"{module}.weight" in tensors or module in tensors
        if len(names) == PAIR and module and not is_whole and _is_projection(module, family):
            skips |= _doubts(module, names, matrices)
    return skips


def _has_bias(name: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a bias of its own is beside a parameter: ``b_in`` beside ``W_in``."""
    module, dot, leaf = name.rpartition(".")
    swaps = (("weight", "bias"), ("w", "b"), ("W", "b"), ("W", "B"))
    own = {leaf.replace(weight, bias, 1) for weight, bias in swaps} - {leaf}
    biases = [tensors[held] for end in own if (held := f"{module}{dot}{end}") in tensors]
    return any(len(b.shape) == 1 and b.shape[0] in tensors[name].shape for b in biases)


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
