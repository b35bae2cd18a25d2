"""What a training keeps beside its weights: states of optimizers, and second copies of weights.

Optimizers are recognised by content. Where it is nested, a table with ``state`` and
``param_groups`` is an optimizer, and so is one whose entries hold moments for each parameter. Where
names are flat, as in safetensors and distributed checkpoints, the names show the same:
``optim.state.fc1.weight.exp_avg`` contains the name of a parameter, with a word for optimizers
before it or one for moments after it.

Copies are averages, targets, gradients and snapshots. Names and shapes that mirror each other are
necessary but not sufficient: two networks may be made alike, as the critics of an agent or the two
generators of a cycle are. What decides is the key, or else the numbers: a copy is nearly parallel
to its original, while the weights of two networks that were initialised separately are nearly at
right angles, in thousands of dimensions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property, lru_cache

import numpy as np

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.checksums import sampling
from rankscope.checkpoints.families.names import parts_in, plain_name
from rankscope.checkpoints.files.key_words import AVERAGE, MOMENT, OPTIMIZER, STATE, words_of
from rankscope.checkpoints.files.saved_tree import Branch, Leaf
from rankscope.checkpoints.tensors import FLOATS, StoredTensor, Tensor
from rankscope.errors import RankscopeError

SAMPLE, MATRICES = 2048, 8  # elements of each matrix, and matrices, that are compared
PARALLEL = 0.5  # cosine: about 0.01 at random, over 0.9 for a late average
# Names that agents give to the slower of two networks, and hooks to averages kept as buffers.
TARGET = re.compile(r"_(?:target|old)(?=\.)|(?<![^.])target_")
PREFIXED = re.compile(r"(?:ema|swa|avg)_")
TABLES = ("state", "param_groups")


def is_optimizer(branch: Branch) -> bool:
    """Whether a table is the state of an optimizer.

    Under other names it still has what no network has: a table of moments for every parameter. The
    price of an error is a network with parts of both names, which the account shows.
    """
    if all(name in branch.children for name in TABLES):
        return True
    tables = [child for child in branch.branches.values() if child.kind == "table"]
    return bool(tables) and all(
        any(MOMENT.fullmatch(key) for key in table.tensors) for table in tables
    )


def without_training_state(
    tensors: Mapping[str, Tensor], *, listed: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[Classed]]:
    """Split tensors with flat names into the model's and those of an optimizer or an average.

    Parameters
    ----------
    listed
        Names of things beside them that are not tensors.
    """
    if not any(map(_is_of_training, parts_in((*tensors, *listed)))):
        return {**tensors}, []
    reasons = _States(tensors, listed).reasons
    kept = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    return kept, [Classed(tensors[name], "optimizer", why) for name, why in reasons.items()]


class _States:
    """Finds the names that belong to training state, and why."""

    def __init__(self, tensors: Mapping[str, Tensor], listed: Collection[str]) -> None:
        self._tensors = tensors
        self._prefixes = tuple(_optimizers({*tensors, *listed}))
        self._averages = tuple(_averages(tensors))
        reasons = {name: self._reason(name) for name in tensors}
        self.reasons = {name: reason for name, reason in reasons.items() if reason}

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """The tensors by their names, and by those without the first part."""
        return {n.partition(".")[2]: one for n, one in self._tensors.items()} | {**self._tensors}

    def _reason(self, name: str) -> str:
        parts = name.split(".")
        if not (self._prefixes or self._averages or any(map(_may_be_state, parts))):
            return ""
        if name.startswith(self._prefixes):
            return "state of an optimizer"
        if any(MOMENT.fullmatch(part) for part in parts[-2:]):
            return "a moment of an optimizer"
        if name.startswith(self._averages):
            return "an average of the weights, a second copy of them"
        if self._is_target(name):
            return "a target network, a second copy of the weights"
        start = next((i for i, part in enumerate(parts, 1) if _is_of_state(part)), len(parts))
        if any(self._is_mirrored(parts, index) for index in range(start, len(parts))):
            return "state of an optimizer, for a parameter of this name"
        return ""

    def _is_target(self, name: str) -> bool:
        """Whether the name without its word for targets is that of a weight of the same shape."""
        other = TARGET.sub("", name, count=1)
        shape = self._tensors[name].shape
        return other != name and other in self._tensors and self._tensors[other].shape == shape

    def _is_mirrored(self, parts: list[str], start: int) -> bool:
        """Whether the name of a parameter begins here: with more after it, or with its shape.

        The weights may have a prefix that is absent here.
        """
        for end in range(start + 1, len(parts) + 1):
            inner = self._weights.get(".".join(parts[start:end]))
            if inner is not None and (
                end < len(parts) or inner.shape == self._tensors[".".join(parts)].shape
            ):
                return True
        return False


@lru_cache(maxsize=4096)  # the names of a model share nearly all of their parts
def _is_of_training(part: str) -> bool:
    """Whether a name with this part may be that of anything that is not the model's."""
    return _may_be_state(part) or _is_of_average(part) or part in TABLES


def _is_of_average(part: str) -> bool:
    return bool(words_of(part) & AVERAGE) or PREFIXED.match(part) is not None


@lru_cache(maxsize=4096)  # as above
def _may_be_state(part: str) -> bool:
    """Whether a name with this part may be that of a moment, of a target or of a state."""
    is_moment = MOMENT.fullmatch(part) is not None
    return is_moment or "target" in part or part.endswith("_old") or _is_of_state(part)


def _is_of_state(part: str) -> bool:
    return part in STATE or bool(words_of(part) & OPTIMIZER)


def _averages(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Prefixes of averages: each name without it must be that of a weight of the same shape.

    The dots may be missing from it, and the weights may have a prefix too.
    """
    groups: dict[str, list[str]] = {}
    prefixes = {name: _average_prefix(name) for name in tensors}
    if not any(prefixes.values()):
        return
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        if prefixes[name]:
            groups.setdefault(prefixes[name], []).append(name)
            continue
        for form in (name, name.partition(".")[2]):
            shapes.setdefault(_letters(form), set()).add(tensor.shape)
    for prefix, names in groups.items():
        held = {name: _letters(name.removeprefix(prefix)) for name in names}
        wide = [name for name in names if math.prod(tensors[name].shape) > 1]
        if wide and all(tensors[name].shape in shapes.get(held[name], ()) for name in wide):
            yield prefix


def _average_prefix(name: str) -> str:
    """The start of a name up to a part with a word for averages; empty if there is none."""
    parts = name.split(".")
    for end, part in enumerate(parts[:-1], 1):
        if words_of(part) & AVERAGE:
            return ".".join(parts[:end]) + "."
    match = PREFIXED.match(name)
    return match[0] if match else ""


def _letters(name: str) -> str:
    return name.replace(".", "").replace("_", "")


def _optimizers(names: Collection[str]) -> list[str]:
    """Prefixes of an optimizer's state, where its groups are listed beside it."""
    tables: dict[str, set[str]] = {}
    for name in names:
        if not any(table in name for table in TABLES):
            continue
        parts = name.split(".")
        for index, part in enumerate(parts[:-1]):
            if part in TABLES:
                tables.setdefault(".".join(parts[:index]), set()).add(part)
    whole = [prefix for prefix, held in tables.items() if len(held) == len(TABLES)]
    return [f"{prefix}.{table}." if prefix else f"{table}." for prefix in whole for table in TABLES]


def is_copy(table: Mapping[str, Leaf], original: Mapping[str, Leaf], *, says_so: bool) -> bool:
    """Whether a table is a second copy of another one's weights, or holds their gradients.

    Each of its tensors, single numbers aside, has a counterpart of the same name and shape. Where
    its key does not say what it is, a few thousand numbers of both are compared.

    Parameters
    ----------
    says_so
        Whether its key is one that trainers use for copies.
    """
    pairs = list(_pairs(table, original))
    if not pairs or any(other is None for _, other in pairs):
        return False
    return says_so or _is_parallel([(a, b) for a, b in pairs if b is not None])


def is_list_of(nameless: Mapping[str, Leaf], original: Mapping[str, Leaf]) -> bool:
    """Whether tensors without names have, in order, the shapes of a network's tensors.

    Some averages are saved like this. At least three are needed, since fewer may fit by chance.
    """
    shapes = iter([one.shape for one in original.values()])
    return len(nameless) > 2 and all(one.shape in shapes for one in nameless.values())


def _pairs(
    table: Mapping[str, Leaf], original: Mapping[str, Leaf]
) -> Iterator[tuple[Leaf, Leaf | None]]:
    """The tensors of a table, single numbers aside, with their counterparts."""
    plain = {plain_name(name): leaf for name, leaf in original.items()}
    undotted = {name.replace(".", ""): leaf for name, leaf in plain.items()}
    for name, leaf in table.items():
        if math.prod(leaf.shape) <= 1:
            continue
        inner = plain_name(name)
        forms = (inner, inner.partition(".")[2], plain_name(inner.partition(".")[2]))
        others = (plain.get(form, undotted.get(form)) for form in forms if form)
        yield leaf, next((one for one in others if one and one.shape == leaf.shape), None)


def _is_parallel(pairs: list[tuple[Leaf, Leaf]]) -> bool:
    sampled = [pair for pair in pairs if all(map(_is_plain_matrix, pair))][:MATRICES]
    try:
        values = [(_sample(a), _sample(b)) for a, b in sampled]
    except RankscopeError:
        return False  # measuring them will show what is wrong
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
    """Elements from the middle of a tensor."""
    count = math.prod(leaf.shape)
    start = max(count - SAMPLE, 0) // 2
    with sampling():
        return np.asarray(leaf.elements(start, min(start + SAMPLE, count)), dtype=np.float64)
