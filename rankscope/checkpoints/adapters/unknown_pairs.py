"""Pairs of tensors that look like the factors of one matrix but are in no table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.neighbours import Neighbours, words
from rankscope.checkpoints.families.no_maps import why_no_map
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import printable

PAIR, MATRIX = 2, 2
# Words for what a parameter belongs to, of which a block has one each: not the halves of a matrix.
PARTS = {"attn", "attention", "mlp", "ffn", "ff", "moe"}
WORD = re.compile(r"[A-Za-z]+|\d+")
# Words of modules with what changes the weight of the module around them.
ADAPTERS = {"lora", "adapter", "delta"}
# Names with these ends are maps or tables alone: ``image_projection`` beside ``text_projection``.
WHOLE = ("proj", "projection", "weight", "head", "emb", "embed", "embedding", "embeddings", "table")
# Parts of a pruned or normalised weight, and weights of torch's recurrent layers, are pairs but not
# factors.
NO_FACTOR = re.compile(
    r"weight_(orig|mask|[guv])|original\d?|weight_[ih][hr](_l\d+)?(_reverse)?", re.IGNORECASE
)


def unknown_pairs(
    tensors: Mapping[str, Tensor], family: Family, near: Neighbours | None = None
) -> dict[str, Skip]:
    """A skip for every tensor that may be half of a matrix, by plain name.

    Two tensors may be if they share a side of at most half of both other sides, and are either

    * parameters of the same module whose names differ in one word (``left_factor`` and
      ``right_factor``, but not ``attn_map`` and ``mlp_map``), neither of which the family names,
      and not both with a bias, since a product has one. (Two layers of a bottleneck are two
      modules with one ``weight`` each.) Or
    * the only matrices below a module that the family knows as a projection and that has no weight
      itself (``q_proj.0.weight``, ``q_proj.1.weight``). Or
    * the only matrices below a module besides one of the shape of their product, neither with a
      bias: an adapter written by hand (``fc.linear.weight``, ``fc.left.weight``,
      ``fc.right.weight``), which may change that one, so that it is not measured either.

    The cost of an error: two matrices are not measured, and the skips say how to change that.
    Without the rule two factors would be measured as weights.

    Parameters
    ----------
    tensors
        By plain name, without the factors that a table knows.
    near
        Their neighbours, if they are known.
    """
    near = near or Neighbours(tensors, family.tells_apart)
    # Where several blocks are alike, the first has a pair or none has.
    firsts = [name for name, first in near.first_alike.items() if name == first]
    if len(firsts) < len(tensors) and not _pairs_among(firsts, tensors, family, near):
        return {}
    return _pairs_among(tensors, tensors, family, near)


def _pairs_among(
    names: Iterable[str], tensors: Mapping[str, Tensor], family: Family, near: Neighbours
) -> dict[str, Skip]:
    """A skip for every tensor that may be half of a matrix with another of these names."""
    matrices = {
        name: tensor
        for name, tensor in ((name, tensors[name]) for name in names)
        if len(tensor.shape) == MATRIX and min(tensor.shape) > 1 and tensor.dtype in FLOATS
        if not _is_no_factor(name.removesuffix(".weight").rpartition(".")[2])
        if not why_no_map(name, tensor, near)
    }
    own: dict[tuple[str, str], list[str]] = {}
    below: dict[str, list[str]] = {}
    for name in matrices:
        module, _, leaf = name.rpartition(".")
        if leaf != "weight":
            ends_whole = leaf.rpartition("_")[2] in WHOLE
            for word in WORD.finditer(leaf):
                if (ends_whole and word.end() < len(leaf)) or word[0].lower() in PARTS:
                    continue
                but_it = f"{leaf[: word.start()]}*{leaf[word.end() :]}"
                own.setdefault((module, but_it), []).append(name)
        parent = module if leaf != "weight" else module.rpartition(".")[0]
        below.setdefault(parent, []).append(name)
    skips: dict[str, Skip] = {}
    for (module, _), names in own.items():
        is_pair = len(names) == PAIR and not all(_has_bias(n, matrices[n], near) for n in names)
        if is_pair and not any(_is_known(name, family) for name in names):
            skips |= _doubts(module, names, matrices, _changed(module, names, matrices, below))
    for module, names in below.items():
        if not module or f"{module}.weight" in tensors or module in tensors:
            continue
        if len(names) == PAIR and _is_projection(module, family):
            skips |= _doubts(module, names, matrices)
        if len(names) == PAIR + 1 and not any(_is_known(name, family) for name in names):
            for pair in map(list, itertools.combinations(names, PAIR)):
                weight = _changed(module, pair, matrices, below)
                if weight and not any(near.biases_of(name) for name in pair):
                    skips |= _doubts(module, pair, matrices, weight)
    return skips


@lru_cache(maxsize=4096)  # the names of layers and experts share nearly all of their parts
def _is_no_factor(part: str) -> bool:
    return NO_FACTOR.fullmatch(part) is not None


def _has_bias(name: str, tensor: Tensor, near: Neighbours) -> bool:
    """Whether a parameter has its bias beside it: ``b_in`` beside ``W_in``."""
    return any(len(b) == 1 and b[0] in tensor.shape for b in near.own_biases_of(name))


def _is_projection(module: str, family: Family) -> bool:
    return family.role_of(module) != "other" or family.fused_in(module) is not None


def _is_known(name: str, family: Family) -> bool:
    module = name.removesuffix(".weight")
    return family.names(module) or family.fused_in(module) is not None or family.ignores(module)


def _changed(
    module: str,
    names: list[str],
    tensors: Mapping[str, Tensor],
    below: Mapping[str, list[str]],
) -> str:
    """The weight that the product of two tensors may change; empty if there is none.

    It is that of their module; or it has the shape of the product, and is all else in the module,
    or around a module that is called an adapter (``fc.linear.weight`` beside ``fc.lora.A``).
    """
    own = f"{module}.weight" if module else "weight"
    if own in tensors:
        return own
    around, _, word = module.rpartition(".")
    pair = [(name, tensors[name].shape) for name in names]
    for place in (module, around) if ADAPTERS & {*words(word)} else (module,):
        others = [name for name in below.get(place, ()) if name not in names]
        shape = tensors[others[0]].shape if len(others) == 1 else ()
        if any(made in (shape, shape[::-1]) for *_, made in _products(*pair)):
            return others[0]
    return ""


def _doubts(
    module: str, names: list[str], tensors: Mapping[str, Tensor], weight: str = ""
) -> dict[str, Skip]:
    """Skips for two tensors and the weight that they may change; none if the two share no side."""
    fits = tensors[weight].shape if weight else ()
    found = min(
        _products(*((name, tensors[name].shape) for name in names)),
        key=lambda one: (one[2] != fits, one[0][1] + one[1][1]),  # as few turned as may be
        default=None,
    )
    if found is None:
        return {}
    (left, turned_left), (right, turned_right), shape = found
    is_around = weight and not weight.startswith(f"{module}.") and module
    within = module.rpartition(".")[0] if is_around else module
    ends = [name.removeprefix(f"{within}.").removesuffix(".weight") for name in (left, right)]
    turned = [side for side, t in (("left", turned_left), ("right", turned_right)) if t]
    table = f"[factors.mine] left = {ends[0]!r}, right = {ends[1]!r}, "
    table += f"makes = '{'change' if weight else 'weight'}'"
    table += f", transposed = {turned}" if turned else ""
    message = (
        f"{printable(ends[0], limit=60)} and {printable(ends[1], limit=60)} look like the factors "
        f"of one {shape[0]}×{shape[1]} matrix, so they are not measured: if they are, say so in a "
        f"family file with {printable(table, limit=200)}"
    )
    held = [*names, *([weight] if weight else [])]  # the factors may change it
    path = tensors[left].paths[0]
    code = "looks-like-factors"
    return {name: Skip(path, tensors[name].name, code, message) for name in held}


def _products(
    first: tuple[str, tuple[int, ...]], second: tuple[str, tuple[int, ...]]
) -> Iterator[tuple[tuple[str, bool], tuple[str, bool], tuple[int, int]]]:
    """Ways to multiply two matrices over a side of at most half of their other sides."""
    for (left, a), (right, b) in ((first, second), (second, first)):
        for turned_left in (False, True):
            for turned_right in (False, True):
                rows, inner = a[::-1] if turned_left else a
                also, columns = b[::-1] if turned_right else b
                if inner == also and 2 * inner <= min(rows, columns):
                    yield (left, turned_left), (right, turned_right), (rows, columns)
