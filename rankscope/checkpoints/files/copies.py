"""Second copies of a network's weights: averages, targets, gradients, snapshots.

Names and shapes that mirror each other are needed, and not enough: two networks may be made alike,
as the critics of an agent or the two generators of a cycle. What decides is the key, or else the
numbers: a copy runs nearly parallel to its original, while the weights of two networks that were
initialised apart are nearly at right angles, in thousands of dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from rankscope.checkpoints.checksums import sampling
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.saved_tree import Leaf
from rankscope.checkpoints.tensors import FLOATS, StoredTensor
from rankscope.errors import RankscopeError

SAMPLE, MATRICES = 2048, 8  # elements of a matrix, and matrices, that are compared
PARALLEL = 0.5  # cosine; at random it is about 0.01, and a late average has more than 0.9


def is_copy(table: Mapping[str, Leaf], original: Mapping[str, Leaf], *, says_so: bool) -> bool:
    """Whether a table holds the weights of another one once more, or their gradients.

    Every tensor of it that is not a single number has a counterpart of its name and shape. Where
    its key does not say what it is, a few thousand numbers of both are compared.

    Parameters
    ----------
    says_so
        Whether its key is one that trainers give to copies.
    """
    pairs = list(_pairs(table, original))
    if not pairs or any(other is None for _, other in pairs):
        return False
    return says_so or _is_parallel([(a, b) for a, b in pairs if b is not None])


def is_list_of(nameless: Mapping[str, Leaf], original: Mapping[str, Leaf]) -> bool:
    """Whether tensors without names have, in their order, shapes of a network's tensors.

    Averages are kept so. A list of a few small tensors may fit by chance, so that it needs three.
    """
    shapes = iter([one.shape for one in original.values()])
    return len(nameless) > 2 and all(one.shape in shapes for one in nameless.values())


def _pairs(
    table: Mapping[str, Leaf], original: Mapping[str, Leaf]
) -> Iterator[tuple[Leaf, Leaf | None]]:
    """The tensors of a table that are not single numbers, with their counterparts."""
    plain = {plain_name(name): leaf for name, leaf in original.items()}
    undotted = {name.replace(".", ""): leaf for name, leaf in plain.items()}
    for name, leaf in table.items():
        if math.prod(leaf.shape) <= 1:
            continue
        inner = plain_name(name)
        forms = (inner, inner.partition(".")[2], plain_name(inner.partition(".")[2]))
        found = [plain.get(form, undotted.get(form)) for form in forms if form]
        yield (
            leaf,
            next((one for one in found if one is not None and one.shape == leaf.shape), None),
        )


def _is_parallel(pairs: list[tuple[Leaf, Leaf]]) -> bool:
    sampled = [pair for pair in pairs if all(map(_is_plain_matrix, pair))][:MATRICES]
    try:
        values = [(_sample(a), _sample(b)) for a, b in sampled]
    except RankscopeError:
        return False  # whoever measures them says what is wrong
    if not values:
        return False
    a, b = (np.concatenate(side) for side in zip(*values, strict=True))
    with np.errstate(all="ignore"):
        cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return math.isfinite(cosine) and cosine > PARALLEL


def _is_plain_matrix(leaf: Leaf) -> bool:
    is_wide = sum(size > 1 for size in leaf.shape) > 1
    in_rows = isinstance(leaf, StoredTensor) and leaf.strides is None
    return is_wide and in_rows and leaf.dtype in FLOATS


def _sample(leaf: Leaf) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Elements from the middle."""
    count = math.prod(leaf.shape)
    start = max(count - SAMPLE, 0) // 2
    with sampling():
        return np.asarray(leaf.elements(start, min(start + SAMPLE, count)), dtype=np.float64)
