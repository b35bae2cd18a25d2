"""Which of the tables in a saved object are a model's, and what the others are.

Trainers save what they like under any names. What decides is content: a table with ``state`` and
``param_groups`` is an optimizer; a second table with the names and shapes of the first is a copy of
it, if its key says so or its numbers are nearly parallel; one with other names or other numbers is
another network. The rules, and the price of an error in each:

- *optimizer*: a network with parts called ``state`` and ``param_groups`` is lost; the account shows
  it.
- *copy*: one of two networks that were made alike and have hardly diverged is left out; the
  account and a note show it.
- *network*: a table of numbers with names like those of parameters is measured.
- *neither*: a network whose names say nothing gives one skip per matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Class, Skip
from rankscope.checkpoints.files.key_words import (
    GRADIENT,
    MODEL_KEYS,
    are_siblings,
    is_copy_key,
    is_optimizer_key,
    words_of,
)
from rankscope.checkpoints.files.opened_file import Opened, SlicedTensor, Unread
from rankscope.checkpoints.files.pickles import listed, unsafe
from rankscope.checkpoints.files.saved_tree import Branch, Keys, Leaf, is_matrix, tree_of
from rankscope.checkpoints.files.saved_units import Unit, as_one, units_of
from rankscope.checkpoints.files.torch_file import Saved
from rankscope.checkpoints.files.training_state import is_copy, is_list_of, without_training_state
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable

NOTHING = "does not hold a table of tensors by name"


def sorted_tables(saved: Saved, *, key: str | None = None) -> Opened:
    """Sort the tensors of a saved object.

    Parameters
    ----------
    key
        The key under which the trainer that wrote the file has the model; None to find it.

    Raises
    ------
    RankscopeError
        If nothing under the key, or nothing at all, may be a model's; with the reason
        ``unsafe-pickle`` where objects that only code can make may be the cause. With the reason
        ``slices`` if the file has only one process's piece of any tensor of the model.
    """
    opened = sorted_pieces(saved, key=key)
    for name, tensor in opened.tensors.items():
        if isinstance(tensor, SlicedTensor):
            message = f"{tensor.why}: give the folder with all such files, or save whole weights"
            raise RankscopeError(message, path=saved.path, tensor=name, reason="slices")
    return opened


def sorted_pieces(saved: Saved, *, key: str | None = None) -> Opened:
    """The same for one of several files that hold a model in slices: pieces count as tensors."""
    path = str(saved.path)
    sorting = _Sorting(path, tree_of(saved.content, path), key)
    tensors = sorting.networks()
    if not tensors and not sorting.skips:
        if saved.closed:
            raise unsafe(saved.closed, path)
        raise RankscopeError(sorting.nothing, path=path, reason="no-state-dict")
    kept, states = without_training_state(tensors)
    notes = [*sorting.notes]
    if saved.closed:
        message = f"objects that only code can make are not opened ({listed(saved.closed)})"
        notes.append(Skip(path, "", "closed-objects", message))
    aside = [*sorting.aside, *states]
    return Opened(kept, tuple(_once_named(aside, kept)), tuple(sorting.skips), tuple(notes))


def lack_of_weights(saved: Saved) -> str:
    """What a saved object holds in place of weights; empty if any tensor may be of a model.

    Tensors that only code can make may be, and so may pieces of tensors. Vectors of integers alone
    are not, whatever their names: they are states of random generators or orders of samples. This
    is wrong for a file with nothing but an index that belongs to weights elsewhere.
    """
    try:
        opened = sorted_pieces(saved)
    except RankscopeError as error:
        return "" if error.reason == "unsafe-pickle" else error.message
    if opened.skips or any(map(_may_be_of_model, opened.tensors.values())):
        return ""
    if opened.tensors:
        return "holds only vectors of integers, and no weights"
    return NOTHING


def _may_be_of_model(tensor: Tensor) -> bool:
    is_wide = sum(size > 1 for size in tensor.shape) > 1
    return is_wide or not tensor.dtype.startswith(("int", "uint", "bool"))


class _Sorting:
    """Goes through the units of an object and puts each tensor where it belongs."""

    def __init__(self, path: str, root: Branch, key: str | None) -> None:
        self.path = path
        self.aside: list[Classed] = []
        self.skips: list[Skip] = []
        self.notes: list[Skip] = []
        self.nothing = NOTHING
        self._key = key
        self._units = units_of(root, key)

    def networks(self) -> dict[str, Tensor]:
        """Tensors of the networks by name; everything else is put aside."""
        for keys, branch in self._units.optimizers:
            self._set_optimizer_aside(branch, keys)
        if self._key is not None and not self._has_stated():
            self.nothing = f"has no weights under its key {self._key!r}, where its layout has them"
            return {}
        units, beside = self._units.units, self._units.beside
        chosen = [unit for unit in units if self._key == unit.key or unit.is_network]
        if not chosen:
            rest = [unit for unit in units if is_optimizer_key(unit.key)]
            chosen = [as_one([one for one in units if one not in rest], beside)]
            units, beside = rest, {}
        accepted: list[Unit] = []
        for unit in sorted(chosen, key=self._preference):
            original = self._original(unit, accepted)
            if original is None:
                accepted.append(unit)
            else:
                self._set_aside_copy(unit, original)
        for unit in units:
            if not any(unit is one for one in chosen):
                self._set_aside(unit, accepted)
        for place, leaf in beside.items():
            self._leave(place, leaf)
        return self._joined(accepted)

    def _has_stated(self) -> bool:
        """Whether there is any tensor where the layout has its model."""
        keyed = (unit for unit in self._units.units if unit.key == self._key)
        return any(unit.table or unit.nameless for unit in keyed)

    def _preference(self, unit: Unit) -> tuple[bool, bool, bool, int]:
        """The model that the layout knows, then those under the usual keys; copies last."""
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
        for place, leaf in unit.iter_places():
            self._put(place, leaf, "optimizer", reason)
        self.notes.append(Skip(self.path, "", "copy", f"holds {reason}"))

    def _set_optimizer_aside(self, branch: Branch, keys: Keys) -> None:
        under = printable(".".join(keys), limit=120) or "the whole file"
        self.nothing = "holds the state of an optimizer, and no weights"
        for own, leaf, _ in branch.iter_leaves():
            place = ".".join((*keys, *own))
            self._put(place, leaf, "optimizer", f"state of the optimizer under {under}")

    def _set_aside(self, unit: Unit, accepted: list[Unit]) -> None:
        """Put aside what is not a network: an optimizer, a copy without names, or anything else."""
        if is_optimizer_key(unit.key):
            for place, leaf in unit.iter_places():
                self._put(place, leaf, "optimizer", f"is under {printable(unit.key, limit=120)}")
            return
        originals = [one for one in accepted if is_list_of(unit.nameless, one.table)]
        for name, leaf in unit.nameless.items():
            place = unit.place(name)
            if originals:
                reason = f"a second copy, in a list, of the weights under {originals[0].key}"
                self._put(place, leaf, "optimizer", printable(reason, limit=300))
            else:
                self._leave(place, leaf, why="is in a list or a closed object, without a name")
        for name, leaf in (unit.table | unit.buffers).items():
            self._leave(unit.place(name), leaf)

    def _joined(self, accepted: list[Unit]) -> dict[str, Tensor]:
        """Tensors of all networks; the first loses a key that only says it is the model."""
        tensors: dict[str, Tensor] = {}
        for unit in accepted:
            keys = unit.keys
            if unit is accepted[0] and keys and (keys[-1] in MODEL_KEYS or unit.key == self._key):
                keys = ()
            table = {".".join((*keys, name)): leaf for name, leaf in unit.table.items()}
            if keys != unit.keys and len(accepted) > 1:
                others = (f"{one.key}." for one in accepted[1:])
                if any(name.startswith(other) for other in others for name in table):
                    table = {unit.place(n): leaf for n, leaf in unit.table.items()}
            for name, leaf in table.items():
                free = name
                while free in tensors:
                    free = f"{free} (again)"
                tensors[free] = replace(leaf, name=free)
            for name, leaf in unit.nameless.items():
                why = "is in a list or a closed object, without the name of a parameter"
                self._leave(unit.place(name), leaf, why=why)
            for name, leaf in unit.buffers.items():
                self._put(
                    ".".join((*unit.keys, name)), leaf, "no linear map", "a buffer of a module"
                )
        return tensors

    def _leave(self, place: str, leaf: Leaf, *, why: str = "") -> None:
        """Put aside a tensor outside of any network; only a matrix counts as not understood."""
        if not is_matrix(leaf):
            self._put(place, leaf, "no linear map", "numbers beside the model")
            return
        message = why or "is beside the model, and its name is not that of a parameter"
        if isinstance(leaf, Unread) and not why:
            message = leaf.why
        self._put(place, leaf, "not understood", message)
        self.skips.append(Skip(self.path, place, "not-understood", message))

    def _put(self, place: str, leaf: Leaf, kind: Class, reason: str) -> None:
        self.aside.append(Classed(replace(leaf, name=place), kind, reason))


def _once_named(aside: Iterable[Classed], kept: Mapping[str, Tensor]) -> Iterator[Classed]:
    """The same under names that none of the model's tensors has: the account identifies by name."""
    taken = set(kept)
    for one in aside:
        tensor, name = one.tensor, one.tensor.name
        while name in taken:
            name = f"{name} (again)"
        taken.add(name)
        yield replace(one, tensor=replace(tensor, name=name)) if isinstance(tensor, Leaf) else one
