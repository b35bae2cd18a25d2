"""A saved object as a tree: tables, modules, lists and closed objects, and tensors as leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.files.opened_file import SlicedTensor, Unread
from rankscope.checkpoints.files.torch_tensors import ClosedTensor
from rankscope.checkpoints.limits import MAX_DEPTH, MAX_NAME, short_name
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError, printable

NESTED = "holds containers nested too deeply"
MODULE = ("_parameters", "_buffers", "_modules")  # attributes of torch's modules with tensors
ARRAYS = ("numpy.multiarray._reconstruct", "numpy.numeric._frombuffer")
NUMBERS = {"f2": "float16", "f4": "float32", "f8": "float64"}

Leaf = StoredTensor | Unread
Keys = tuple[str, ...]


@dataclass
class Branch:
    """A container: it holds other containers or tensors under keys.

    Attributes
    ----------
    kind
        What the keys are. ``table``: names. ``module``: those of the state dict of a torch module.
        ``list``: numbers. ``object``: attributes of a closed object.
    children
        None for what is neither a tensor nor a container.
    buffers
        Children of a module that are not parameters.
    """

    kind: Literal["table", "module", "list", "object"]
    children: dict[str, Branch | Leaf | None] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()

    @property
    def branches(self) -> dict[str, Branch]:
        """Children that are containers with tensors in them."""
        return {
            key: child
            for key, child in self.children.items()
            if isinstance(child, Branch) and any(True for _ in child.iter_leaves())
        }

    @property
    def tensors(self) -> dict[str, Leaf]:
        """Children that are tensors."""
        return {key: one for key, one in self.children.items() if isinstance(one, Leaf)}

    def iter_leaves(self) -> Iterator[tuple[Keys, Leaf, Branch]]:
        """Every tensor below, with the keys that lead to it and its container."""
        for key, child in self.children.items():
            if isinstance(child, Branch):
                yield from (((key, *keys), leaf, held) for keys, leaf, held in child.iter_leaves())
            elif child is not None:
                yield (key,), child, self


def tree_of(content: Any, path: str) -> Branch:
    """The tree of a saved object; one that is neither a container nor a tensor is an empty list.

    A container that occurs twice, or within itself, is in the tree once.

    Raises
    ------
    RankscopeError
        If it is nested too deeply.
    """
    grown = _Growing(path).grown(content, "", 0)
    if isinstance(grown, Branch):
        return grown
    return Branch("list", {} if grown is None else {"0": grown})


class _Growing:
    """Turns a saved object into branches, each container once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: dict[int, Any] = {}  # by id; keeps them alive, so that no id is reused

    def grown(self, one: Any, place: str, depth: int) -> Branch | Leaf | None:
        if isinstance(one, StoredTensor):
            return one
        if isinstance(one, HeldPiece):
            return _sliced(one, self._path)
        if isinstance(one, ClosedTensor):
            return _closed(one, self._path)
        array = _array(one, self._path)
        if array is not None:
            return array
        container = _opened(one)
        if container is None or id(one) in self._seen:
            return None
        if depth > MAX_DEPTH or len(place) > MAX_NAME:
            raise RankscopeError(NESTED, path=self._path, reason="damaged")
        self._seen[id(one)] = one
        kind, entries, buffers = container
        children: dict[str, Branch | Leaf | None] = {}
        for key, held in entries.items():
            name = short_name(str(key))
            while name in children:  # 1 and "1" are two keys
                name = f"{name} (again)"
            children[name] = self.grown(held, f"{place}.{name}", depth + 1)
        return Branch(kind, children, buffers)


Contents = tuple[Literal["table", "module", "list", "object"], dict[Any, Any], frozenset[str]]


def _opened(one: Any) -> Contents | None:
    """Kind, entries and buffers of a container; None for anything else."""
    none: frozenset[str] = frozenset()
    if isinstance(one, dict):
        return "table", one, none
    if isinstance(one, list | tuple):
        return "list", dict(enumerate(one)), none
    if isinstance(one, SimpleNamespace):
        return "object", vars(one), none
    state = one.state if isinstance(one, Opaque) else getattr(one, "__dict__", None)
    if isinstance(state, tuple) and state and isinstance(state[0], dict):
        state = state[0]  # beside the slots
    if isinstance(state, dict) and all(isinstance(state.get(kind), dict) for kind in MODULE):
        entries = {key: held for kind in MODULE for key, held in state[kind].items()}
        constants = one.appended if isinstance(one, Opaque) else []
        if constants:
            entries["constants"] = constants
        return "module", entries, frozenset(map(str, state["_buffers"]))
    if not isinstance(one, Opaque):
        return None
    if one.items:
        return "table", one.items, none
    entries = dict(state) if isinstance(state, dict) else {"state": state}
    entries |= {"args": one.args} if one.args else {}
    entries |= {"items": one.appended} if one.appended else {}
    return "object", entries, none


def _closed(one: ClosedTensor, path: str) -> Unread:
    why = f"is a {printable(one.name, limit=80)}, which is not a plain tensor"
    return Unread(path, "", one.dtype, one.shape, why, reason=one.reason)


def _sliced(one: HeldPiece, path: str) -> SlicedTensor:
    dtype = "" if one.local is None else one.local.dtype
    return SlicedTensor(path, "", dtype, one.shape, one.message, piece=one)


def _array(one: Any, path: str) -> Unread | None:
    """A numpy array, whose numbers are inside the pickle; None for anything else."""
    if not isinstance(one, Opaque) or one.name not in ARRAYS:
        return None
    if one.name == ARRAYS[0]:
        match one.state:
            case (_, tuple(shape), Opaque() as kind, _, bytes()):
                pass
            case _:
                return None  # not filled, or with objects
    else:
        match one.args:
            case (_, Opaque() as kind, tuple(shape), *_):
                pass
            case _:
                return None
    code = str(kind.args[0]).lstrip("<>=|") if kind.args else ""
    sizes = shape if all(type(n) is int and n >= 0 for n in shape) else ()
    why = "is a numpy array inside a pickle, which is not read: save it as a tensor"
    return Unread(path, "", NUMBERS.get(code, code), sizes, why)


def is_matrix(leaf: Leaf) -> bool:
    """Whether a tensor may be a matrix of a model, by its shape and format.

    Of signed integers only 8-bit ones count: nothing but quantised weights is stored in them.
    """
    is_wide = sum(size > 1 for size in leaf.shape) > 1
    whole = ("int", "uint", "bool", "i", "u", "b1", "complex")
    return is_wide and (leaf.dtype == "int8" or not leaf.dtype.startswith(whole))
