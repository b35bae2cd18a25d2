"""A saved object divided into units: networks, copies of them, optimizers, and the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rankscope.checkpoints.files.key_words import (
    MODEL_KEYS,
    is_optimizer_key,
    is_parameter_name,
)
from rankscope.checkpoints.files.saved_tree import Branch, Keys, Leaf, is_matrix
from rankscope.checkpoints.files.training_state import is_optimizer


@dataclass
class Unit:
    """Tensors that belong together: a network, a copy of one, or something else.

    Attributes
    ----------
    keys
        Keys that lead to it.
    table
        Its tensors, by their names within it.
    nameless
        Tensors in a list or a closed object, where no name of a parameter leads.
    buffers
        Tensors that a module says are not parameters.
    """

    keys: Keys
    table: dict[str, Leaf] = field(default_factory=dict)
    nameless: dict[str, Leaf] = field(default_factory=dict)
    buffers: dict[str, Leaf] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its keys, joined by dots."""
        return ".".join(self.keys)

    @property
    def is_network(self) -> bool:
        """Whether its key says so, or it has a matrix with the name of a parameter."""
        if self.keys and self.keys[-1] in MODEL_KEYS and self.table:
            return True
        return any(is_matrix(one) and is_parameter_name(name) for name, one in self.table.items())

    def place(self, name: str) -> str:
        """Keys that lead to one of its tensors, joined by dots."""
        return ".".join((*self.keys, name))

    def iter_places(self) -> Iterator[tuple[str, Leaf]]:
        """All its tensors with their places."""
        for name, leaf in (self.table | self.nameless | self.buffers).items():
            yield self.place(name), leaf


@dataclass
class Units:
    """The units of a saved object.

    Attributes
    ----------
    beside
        Tensors beside the units in the same containers, by place.
    optimizers
        Tables of optimizers, with the keys that lead to them.
    """

    units: list[Unit] = field(default_factory=list)
    beside: dict[str, Leaf] = field(default_factory=dict)
    optimizers: list[tuple[Keys, Branch]] = field(default_factory=list)


def units_of(root: Branch, key: str | None) -> Units:
    """Divide an object.

    Parameters
    ----------
    key
        The key under which the object has its model, where that is known.
    """
    units = Units()
    _divide(root, (), key, units)
    return units


def as_one(units: list[Unit], beside: dict[str, Leaf]) -> Unit:
    """One unit of all of these, where none is a network by itself."""
    whole = Unit(())
    for unit in units:
        whole.table |= {unit.place(name): leaf for name, leaf in unit.table.items()}
        whole.nameless |= {unit.place(name): leaf for name, leaf in unit.nameless.items()}
        whole.buffers |= {unit.place(name): leaf for name, leaf in unit.buffers.items()}
    whole.table |= beside
    return whole


def _divide(branch: Branch, keys: Keys, key: str | None, units: Units) -> None:
    """Find the units at and below a branch."""
    is_stated = not keys and key is not None and key in branch.children
    if is_optimizer(branch):
        units.optimizers.append((keys, branch))
    elif branch.kind == "module" or not (is_stated or _is_container(branch)):
        units.units.append(Unit(keys))
        _fill(units.units[-1], branch, (), units)
    else:
        for name, child in branch.children.items():
            if isinstance(child, Branch):
                _divide(child, (*keys, name), key, units)
            elif child is not None:
                units.beside[".".join((*keys, name))] = child


def _fill(unit: Unit, branch: Branch, inner: Keys, units: Units) -> None:
    """Put what is below a branch into its unit, except optimizers."""
    for key, child in branch.children.items():
        name = ".".join((*inner, key))
        if isinstance(child, Branch) and is_optimizer(child):
            units.optimizers.append(((*unit.keys, *inner, key), child))
        elif isinstance(child, Branch):
            _fill(unit, child, (*inner, key), units)
        elif child is not None and key in branch.buffers:
            unit.buffers[name] = child
        elif child is not None and branch.kind in ("list", "object"):
            unit.nameless[name] = child
        elif child is not None:
            unit.table[name] = child


def _is_container(branch: Branch) -> bool:
    """Whether a branch is not a model, but holds a model beside other things, or several models.

    Its keys show it, or an optimizer in it, or tables of names with dots (as whole networks have)
    beside tables without names of parameters (as data have). The price of an error is that parts of
    a model are taken for several models: they are measured under the same names, except parts whose
    names say nothing, which are skipped.
    """
    branches = branch.branches
    if branch.kind == "list":
        return bool(branches) and not branch.tensors
    if any(isinstance(child, Branch) and is_optimizer(child) for child in branch.children.values()):
        return True
    if any(key in MODEL_KEYS or is_optimizer_key(key) for key in branches):
        return True
    whole = [_is_whole(child) for child in branches.values()]
    return any(whole) and all(
        is_whole or not any(is_parameter_name(".".join(keys)) for keys, *_ in child.iter_leaves())
        for is_whole, child in zip(whole, branches.values(), strict=True)
        if is_whole or child.kind != "list"
    )


def _is_whole(branch: Branch) -> bool:
    """Whether a branch is a whole network, whose names have dots, or holds several of them."""
    if branch.kind == "list":
        return bool(branch.branches) and all(map(_is_whole, branch.branches.values()))
    return (
        branch.kind == "module"
        or _is_container(branch)
        or any("." in key for key in branch.tensors)
    )
