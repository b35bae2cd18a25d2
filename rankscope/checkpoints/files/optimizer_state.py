"""What optimizers keep, told by content: by the shape of its tables, and by how it mirrors weights.

Where it is nested, a table with ``state`` and ``param_groups`` is an optimizer, and so is one whose
entries hold moments for each parameter. Where names are flat, as in safetensors and distributed
checkpoints, the same shows in the names: ``optim.state.fc1.weight.exp_avg`` has the name of a
parameter in it, with an optimizer's word before it or a moment's behind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.files.saved_tree import Node
from rankscope.checkpoints.files.telling_names import AVERAGE, MOMENT, OPTIMIZER, STATE, words_of
from rankscope.checkpoints.tensors import Tensor

# As agents name the slower of two networks, and hooks the averages that they keep as buffers.
TARGET = re.compile(r"_(?:target|old)(?=\.)|(?<![^.])target_")
PREFIXED = re.compile(r"(?:ema|swa|avg)_")
TABLES = ("state", "param_groups")


def is_optimizer(node: Node) -> bool:
    """Whether a table is the state of an optimizer.

    Under names of its own it still has what no network has: for every parameter a table of
    moments. One that errs costs a network with parts of both names, which the account names.
    """
    if all(name in node.children for name in TABLES):
        return True
    tables = [child for child in node.nodes.values() if child.kind == "table"]
    return bool(tables) and all(
        any(MOMENT.fullmatch(key) for key in table.tensors) for table in tables
    )


def without_training_state(
    tensors: Mapping[str, Tensor], *, listed: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[Classed]]:
    """Tensors with flat names without those that an optimizer or an average keeps.

    Parameters
    ----------
    listed
        Further names that are beside them, of things that are no tensors.
    """
    reasons = _States(tensors, listed).reasons
    kept = {name: tensor for name, tensor in tensors.items() if name not in reasons}
    return kept, [Classed(tensors[name], "optimizer", why) for name, why in reasons.items()]


class _States:
    """The names among others that are of training state, and why."""

    def __init__(self, tensors: Mapping[str, Tensor], listed: Collection[str]) -> None:
        self._tensors = tensors
        self._weights = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
        self._weights |= tensors
        self._prefixes = tuple(_optimizers({*tensors, *listed}))
        self._averages = tuple(_averages(tensors))
        reasons = {name: self._reason(name) for name in tensors}
        self.reasons = {name: reason for name, reason in reasons.items() if reason}

    def _reason(self, name: str) -> str:
        parts = name.split(".")
        if name.startswith(self._prefixes):
            return "state of an optimizer"
        if any(MOMENT.fullmatch(part) for part in parts[-2:]):
            return "a moment of an optimizer"
        if name.startswith(self._averages):
            return "an average of the weights, a second copy of them"
        if self._is_target(name):
            return "a target network, a second copy of the weights"
        start = next((i for i, part in enumerate(parts, 1) if _is_of_state(part)), len(parts))
        if any(self._is_mirrored(parts, place) for place in range(start, len(parts))):
            return "state of an optimizer, for a parameter of this name"
        return ""

    def _is_target(self, name: str) -> bool:
        """Whether without the word for it the name is that of a weight of the same shape."""
        other = TARGET.sub("", name, count=1)
        shape = self._tensors[name].shape
        return other != name and other in self._tensors and self._tensors[other].shape == shape

    def _is_mirrored(self, parts: list[str], start: int) -> bool:
        """Whether from here on there is the name of a parameter, and more, or its shape.

        The weights may have a prefix of their own, which is not there.
        """
        for end in range(start + 1, len(parts) + 1):
            inner = self._weights.get(".".join(parts[start:end]))
            if inner is not None and (
                end < len(parts) or inner.shape == self._tensors[".".join(parts)].shape
            ):
                return True
        return False


def _is_of_state(part: str) -> bool:
    return part in STATE or bool(words_of(part) & OPTIMIZER)


def _averages(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """What the names of an average begin with, if each of them is that of a weight of its shape.

    The dots may be gone from it; and the weights may have a prefix of their own.
    """
    groups: dict[str, list[str]] = {}
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for name, tensor in tensors.items():
        prefix = _average_prefix(name)
        if prefix:
            groups.setdefault(prefix, []).append(name)
            continue
        for form in (name, name.partition(".")[2]):
            shapes.setdefault(_letters(form), set()).add(tensor.shape)
    for prefix, names in groups.items():
        held = {name: _letters(name.removeprefix(prefix)) for name in names}
        wide = [name for name in names if math.prod(tensors[name].shape) > 1]
        if wide and all(tensors[name].shape in shapes.get(held[name], ()) for name in wide):
            yield prefix


def _average_prefix(name: str) -> str:
    """The start of a name up to a part that has a word for averages; empty where none has."""
    parts = name.split(".")
    for end, part in enumerate(parts[:-1], 1):
        if words_of(part) & AVERAGE:
            return ".".join(parts[:end]) + "."
    match = PREFIXED.match(name)
    return match[0] if match else ""


def _letters(name: str) -> str:
    return name.replace(".", "").replace("_", "")


def _optimizers(names: Collection[str]) -> list[str]:
    """What the names of an optimizer's state begin with, where its groups are listed beside it."""
    found: dict[str, set[str]] = {}
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts[:-1]):
            if part in TABLES:
                found.setdefault(".".join(parts[:place]), set()).add(part)
    whole = [prefix for prefix, held in found.items() if len(held) == len(TABLES)]
    return [f"{prefix}.{table}." if prefix else f"{table}." for prefix in whole for table in TABLES]
