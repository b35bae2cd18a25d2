"""Which of the tables in a saved object are a model's, and what the others are.

Trainers save what they like under names of their own. What decides is content: a table with
``state`` and ``param_groups`` is an optimizer; a second table with the names and shapes of the
first is a copy of it, if its key says so or its numbers run parallel; one with other names, or
other numbers, is another network. The rules and what they cost when they err:

- *optimizer*: a network with parts called ``state`` and ``param_groups`` would be lost, named.
- *copy*: one of two networks that were made alike and have not moved apart would be left out, named
  in the account and in a note.
- *network*: a table of numbers whose names look like parameters would be measured.
- *neither*: a network whose names say nothing is a skip a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Class, Skip
from rankscope.checkpoints.files.copies import is_copy, is_list_of
from rankscope.checkpoints.files.opened_file import Opened, Unread
from rankscope.checkpoints.files.optimizer_state import is_optimizer, without_training_state
from rankscope.checkpoints.files.pickles import listed, unsafe
from rankscope.checkpoints.files.saved_tree import Keys, Leaf, Node, is_matrix, tree_of
from rankscope.checkpoints.files.telling_names import (
    GRADIENT,
    MODEL_KEYS,
    are_siblings,
    is_copy_key,
    is_optimizer_key,
    is_parameter_name,
    words_of,
)
from rankscope.checkpoints.files.torch_file import Saved
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable


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
        Those that a module says are no parameters.
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


def sorted_tables(saved: Saved, *, key: str | None = None) -> Opened:
    """Sort the tensors of a saved object.

    Parameters
    ----------
    key
        Under which the trainer that wrote the file has the model; None where that is to be found.

    Raises
    ------
    RankscopeError
        If nothing under the key, or nothing at all, may be a model's; with the reason
        ``unsafe-pickle`` where that may be for objects that only code can make.
    """
    path = str(saved.path)
    sorting = _Sorting(path, tree_of(saved.found, path), key)
    tensors = sorting.networks()
    if not tensors and not sorting.skips:
        if saved.closed:
            raise unsafe(saved.closed, path)
        raise RankscopeError(sorting.nothing, path=path)
    kept, states = without_training_state(tensors)
    notes = [*sorting.notes]
    if saved.closed:
        message = f"objects that only code can make stay closed ({listed(saved.closed)})"
        notes.append(Skip(path, "", "closed-objects", message))
    aside = [*sorting.aside, *states]
    return Opened(kept, tuple(_once_named(aside, kept)), tuple(sorting.skips), tuple(notes))


def lack_of_weights(saved: Saved) -> str:
    """What a saved object holds in the place of weights; empty if any tensor may be a matrix.

    One that only code can make counts as one that may be.
    """
    try:
        opened = sorted_tables(saved)
    except RankscopeError as error:
        return "" if error.reason == "unsafe-pickle" else error.message
    if opened.tensors or opened.skips:
        return ""
    return "holds no table of tensors by name"


class _Sorting:
    """Goes through the units of an object, and puts each tensor where it belongs."""

    def __init__(self, path: str, root: Node, key: str | None) -> None:
        self.path = path
        self.aside: list[Classed] = []
        self.skips: list[Skip] = []
        self.notes: list[Skip] = []
        self.nothing = "holds no table of tensors by name"
        self._root, self._key = root, key
        self._units: list[Unit] = []
        self._beside: list[tuple[str, Leaf]] = []

    def networks(self) -> dict[str, Tensor]:
        """Tensors of the networks by name; everything else goes aside."""
        self._divide(self._root, ())
        named = [unit for unit in self._units if self._key in (None, unit.key)]
        if self._key is not None and not any(unit.table or unit.nameless for unit in named):
            self.nothing = self._nothing_under(self._key)
            self._units, named = [], []
            return {}
        chosen = [unit for unit in self._units if self._key == unit.key or unit.is_network]
        if not chosen:
            self._put_in_one()
            chosen = self._units
        accepted: list[Unit] = []
        for unit in sorted(chosen, key=self._preference):
            original = self._original(unit, accepted)
            if original is None:
                accepted.append(unit)
            else:
                self._set_aside_copy(unit, original)
        for unit in self._units:
            if not any(unit is one for one in chosen):
                self._set_aside(unit, accepted)
        for place, leaf in self._beside:
            self._leave(place, leaf)
        return self._joined(accepted)

    def _nothing_under(self, key: str) -> str:
        held = self._root.children.get(key)
        if isinstance(held, Node) and held.kind in ("table", "module"):
            return "holds no tensors where its layout has them"
        return f"has no weights under its key {key!r}"

    def _divide(self, node: Node, keys: Keys) -> None:
        """Find the units below a node; optimizers go aside on the way."""
        if is_optimizer(node):
            self._set_optimizer_aside(node, keys)
        elif node.kind == "module" or not (self._is_stated(node, keys) or _is_container(node)):
            unit = Unit(keys)
            self._fill(unit, node, ())
            self._units.append(unit)
        else:
            for key, child in node.children.items():
                if isinstance(child, Node):
                    self._divide(child, (*keys, key))
                elif child is not None:
                    self._beside.append((".".join((*keys, key)), child))

    def _fill(self, unit: Unit, node: Node, inner: Keys) -> None:
        """Put what is below a node into its unit; optimizers go aside here too."""
        for key, child in node.children.items():
            name = ".".join((*inner, key))
            if isinstance(child, Node) and is_optimizer(child):
                self._set_optimizer_aside(child, (*unit.keys, *inner, key))
            elif isinstance(child, Node):
                self._fill(unit, child, (*inner, key))
            elif child is not None and key in node.buffers:
                unit.buffers[name] = child
            elif child is not None and node.kind in ("list", "object"):
                unit.nameless[name] = child
            elif child is not None:
                unit.table[name] = child

    def _is_stated(self, node: Node, keys: Keys) -> bool:
        """Whether it is the object itself, and its model is known to lie under a key."""
        return not keys and self._key is not None and self._key in node.children

    def _put_in_one(self) -> None:
        """Where no part is a network for itself, they are parts of one."""
        whole = Unit(())
        rest = []
        for unit in self._units:
            if is_optimizer_key(unit.key):
                rest.append(unit)
                continue
            for own, all_ in (
                (unit.table, whole.table),
                (unit.nameless, whole.nameless),
                (unit.buffers, whole.buffers),
            ):
                all_ |= {".".join((*unit.keys, name)): leaf for name, leaf in own.items()}
        whole.table |= dict(self._beside)
        self._beside = []
        for unit in rest:
            self._set_aside(unit, [])
        self._units = [whole]

    def _preference(self, unit: Unit) -> tuple[bool, bool, bool, int]:
        """The model that the layout knows, then those under the usual keys; copies come last."""
        last = unit.keys[-1] if unit.keys else ""
        place = MODEL_KEYS.index(last) if last in MODEL_KEYS else len(MODEL_KEYS)
        return unit.key != self._key, is_optimizer_key(unit.key), is_copy_key(unit.key), place

    def _original(self, unit: Unit, accepted: list[Unit]) -> Unit | None:
        """The network that a unit is a copy of, if it is one."""
        for other in accepted:
            says_so = is_copy_key(unit.key) or is_optimizer_key(unit.key)
            if not says_so and are_siblings(unit.key, other.key):
                continue
            if is_copy(unit.table, other.table, says_so=says_so):
                return other
        return None

    def _set_aside_copy(self, unit: Unit, original: Unit) -> None:
        under = original.key or "the others"
        what = "gradients" if words_of(unit.key) & GRADIENT else "a second copy"
        reason = f"{what} of the weights under {unit.key}: those under {under} are measured"
        reason = printable(reason, limit=300)
        for place, leaf in _places(unit):
            self._put(place, leaf, "optimizer", reason)
        self.notes.append(Skip(self.path, "", "copy", f"holds {reason}"))

    def _set_optimizer_aside(self, node: Node, keys: Keys) -> None:
        under = printable(".".join(keys), limit=120) or "the whole file"
        self.nothing = "holds the state of an optimizer, and no weights"
        for own, leaf, _ in node.iter_leaves():
            place = ".".join((*keys, *own))
            self._put(place, leaf, "optimizer", f"state of the optimizer under {under}")

    def _set_aside(self, unit: Unit, accepted: list[Unit]) -> None:
        """What is not a network: state of an optimizer, a copy without names, or anything else."""
        if is_optimizer_key(unit.key):
            for place, leaf in _places(unit):
                self._put(place, leaf, "optimizer", f"lies under {printable(unit.key, limit=120)}")
            return
        originals = [one for one in accepted if is_list_of(unit.nameless, one.table)]
        for name, leaf in unit.nameless.items():
            place = ".".join((*unit.keys, name))
            if originals:
                reason = f"a second copy, in a list, of the weights under {originals[0].key}"
                self._put(place, leaf, "optimizer", printable(reason, limit=300))
            else:
                self._leave(place, leaf, why="lies in a list or a closed object, without a name")
        for name, leaf in (unit.table | unit.buffers).items():
            self._leave(".".join((*unit.keys, name)), leaf)

    def _joined(self, accepted: list[Unit]) -> dict[str, Tensor]:
        """Tensors of all networks; the first loses a key that only says that it is the model."""
        tensors: dict[str, Tensor] = {}
        for unit in accepted:
            keys = unit.keys
            if unit is accepted[0] and keys and (keys[-1] in MODEL_KEYS or unit.key == self._key):
                keys = ()
            table = {".".join((*keys, name)): leaf for name, leaf in unit.table.items()}
            if keys != unit.keys and len(accepted) > 1:
                others = (f"{one.key}." for one in accepted[1:])
                if any(name.startswith(other) for other in others for name in table):
                    table = {".".join((*unit.keys, n)): leaf for n, leaf in unit.table.items()}
            for name, leaf in table.items():
                free = name
                while free in tensors:
                    free = f"{free} (again)"
                tensors[free] = replace(leaf, name=free)
            for name, leaf in unit.nameless.items():
                why = "lies in a list or a closed object, without the name of a parameter"
                self._leave(".".join((*unit.keys, name)), leaf, why=why)
            for name, leaf in unit.buffers.items():
                self._put(
                    ".".join((*unit.keys, name)), leaf, "no linear map", "a buffer of a module"
                )
        return tensors

    def _leave(self, place: str, leaf: Leaf, *, why: str = "") -> None:
        """A tensor outside of any network: a matrix is not understood, all else is no map."""
        if not is_matrix(leaf):
            self._put(place, leaf, "no linear map", "numbers beside the model")
            return
        message = why or "lies beside the model, and its name is not that of a parameter"
        if isinstance(leaf, Unread) and not why:
            message = leaf.why
        self._put(place, leaf, "not understood", message)
        self.skips.append(Skip(self.path, place, "not-understood", message))

    def _put(self, place: str, leaf: Leaf, kind: Class, reason: str) -> None:
        self.aside.append(Classed(replace(leaf, name=place), kind, reason))


def _is_container(node: Node) -> bool:
    """Whether a node holds a model beside other things, or several of them, and is not one itself.

    By its keys, by an optimizer in it, or because it holds tables alone that have names with dots,
    as those of whole networks are.
    """
    nodes = node.nodes
    if node.kind == "list":
        return bool(nodes) and not node.tensors
    if any(isinstance(child, Node) and is_optimizer(child) for child in node.children.values()):
        return True
    if any(key in MODEL_KEYS or is_optimizer_key(key) for key in nodes):
        return True
    tables = [child for child in nodes.values() if child.kind != "list"]
    return bool(tables) and all(
        child.kind == "module" or _is_container(child) or any("." in key for key in child.tensors)
        for child in tables
    )


def _places(unit: Unit) -> Iterator[tuple[str, Leaf]]:
    """All its tensors with their places in the object."""
    for name, leaf in (unit.table | unit.nameless | unit.buffers).items():
        yield ".".join((*unit.keys, name)), leaf


def _once_named(aside: Iterable[Classed], kept: Mapping[str, Tensor]) -> Iterator[Classed]:
    """The same under names that none of the model's tensors has: the account goes by names."""
    taken = set(kept)
    for one in aside:
        tensor, name = one.tensor, one.tensor.name
        while name in taken:
            name = f"{name} (again)"
        taken.add(name)
        yield replace(one, tensor=replace(tensor, name=name)) if isinstance(tensor, Leaf) else one
