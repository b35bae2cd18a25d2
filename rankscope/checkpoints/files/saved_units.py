"""A saved object divided into units: networks, copies of them, optimizers, and what lies beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rankscope.checkpoints.files.optimizer_state import is_optimizer
from rankscope.checkpoints.files.saved_tree import Keys, Leaf, Node, is_matrix
from rankscope.checkpoints.files.telling_names import (
    MODEL_KEYS,
    is_optimizer_key,
    is_parameter_name,
)


@dataclass
class Unit:
    """Tensors that belong together: a network, a copy of one, or something else.

    Attributes
    ----------
    keys
        That lead to it.
    table
        Its tensors by name within it.
    nameless
        Those that lie in a list, or in a closed object, so that no name of a parameter leads there.
    buffers
        Those that a module says are not parameters.
    """

    keys: Keys
    table: dict[str, Leaf] = field(default_factory=dict)
    nameless: dict[str, Leaf] = field(default_factory=dict)
    buffers: dict[str, Leaf] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key in words."""
        return ".".join(self.keys)

    @property
    def is_network(self) -> bool:
        """Whether it is one by its key, or has a matrix with the name of a parameter."""
        if self.keys and self.keys[-1] in MODEL_KEYS and self.table:
            return True
        return any(is_matrix(one) and is_parameter_name(name) for name, one in self.table.items())

    def place(self, name: str) -> str:
        """Where one of its tensors lies in the object."""
        return ".".join((*self.keys, name))

    def iter_places(self) -> Iterator[tuple[str, Leaf]]:
        """All its tensors with their places."""
        for name, leaf in (self.table | self.nameless | self.buffers).items():
            yield self.place(name), leaf


@dataclass
class Units:
    """What a saved object was divided into.

    Attributes
    ----------
    beside
        Tensors beside the units in what holds them, by place.
    optimizers
        Tables of optimizers, with the keys that lead to them.
    """

    found: list[Unit] = field(default_factory=list)
    beside: dict[str, Leaf] = field(default_factory=dict)
    optimizers: list[tuple[Keys, Node]] = field(default_factory=list)


def units_of(root: Node, key: str | None) -> Units:
    """Divide an object.

    Parameters
    ----------
    key
        Under which the object has its model, where that is known.
    """
    units = Units()
    _divide(root, (), key, units)
    return units


def as_one(units: list[Unit], beside: dict[str, Leaf]) -> Unit:
    """The unit of all these, where no part is a network by itself."""
    whole = Unit(())
    for unit in units:
        whole.table |= {unit.place(name): leaf for name, leaf in unit.table.items()}
        whole.nameless |= {unit.place(name): leaf for name, leaf in unit.nameless.items()}
        whole.buffers |= {unit.place(name): leaf for name, leaf in unit.buffers.items()}
    whole.table |= beside
    return whole


def _divide(node: Node, keys: Keys, key: str | None, units: Units) -> None:
    """Find the units at and below a node."""
    is_stated = not keys and key is not None and key in node.children
    if is_optimizer(node):
        units.optimizers.append((keys, node))
    elif node.kind == "module" or not (is_stated or _is_container(node)):
        units.found.append(Unit(keys))
        _fill(units.found[-1], node, (), units)
    else:
        for name, child in node.children.items():
            if isinstance(child, Node):
                _divide(child, (*keys, name), key, units)
            elif child is not None:
                units.beside[".".join((*keys, name))] = child


def _fill(unit: Unit, node: Node, inner: Keys, units: Units) -> None:
    """Put what is below a node into its unit, but for optimizers."""
    for key, child in node.children.items():
        name = ".".join((*inner, key))
        if isinstance(child, Node) and is_optimizer(child):
            units.optimizers.append(((*unit.keys, *inner, key), child))
        elif isinstance(child, Node):
            _fill(unit, child, (*inner, key), units)
        elif child is not None and key in node.buffers:
            unit.buffers[name] = child
        elif child is not None and node.kind in ("list", "object"):
            unit.nameless[name] = child
        elif child is not None:
            unit.table[name] = child


def _is_container(node: Node) -> bool:
    """Whether a node holds a model beside other things, or several of them, and is not one itself.

    By its keys, by an optimizer in it, or because it holds tables that have names with dots, as
    those of whole networks are, beside others without the name of a parameter, such as data. One
    that errs takes the parts of a model for several models: they are measured all the same, under
    the same names, but for parts whose names say nothing, which are skipped.
    """
    nodes = node.nodes
    if node.kind == "list":
        return bool(nodes) and not node.tensors
    if any(isinstance(child, Node) and is_optimizer(child) for child in node.children.values()):
        return True
    if any(key in MODEL_KEYS or is_optimizer_key(key) for key in nodes):
        return True
    whole = [_is_whole(child) for child in nodes.values()]
    return any(whole) and all(
        is_whole or not any(is_parameter_name(".".join(keys)) for keys, *_ in child.iter_leaves())
        for is_whole, child in zip(whole, nodes.values(), strict=True)
        if is_whole or child.kind != "list"
    )


def _is_whole(node: Node) -> bool:
    """Whether a node is a network, or holds several: names with dots are those of a whole one."""
    if node.kind == "list":
        return bool(node.nodes) and all(map(_is_whole, node.nodes.values()))
    return node.kind == "module" or _is_container(node) or any("." in key for key in node.tensors)
