"""Files that ``torch.save`` wrote, opened without torch: the object, with its tensors on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.torch_before_1_6 import read_pickles
from rankscope.checkpoints.files.torch_zip import read_zip
from rankscope.checkpoints.files.zip_file import FilePart
from rankscope.checkpoints.tensors import StoredTensor, open_regular
from rankscope.errors import RankscopeError

MAX_DEPTH = 64  # of containers in containers
MAX_NAME = 1000  # characters

# Where trainers keep the model in what they save; the first of equally large ones counts.
MODEL_KEYS = (
    *("model", "state_dict", "model_state_dict", "module", "_model", "weights", "params"),
    *("ema", "model_ema", "ema_model", "ema_state_dict"),
)
OTHER_KEYS = (
    "optim",
    "opt_",
    "sched",
    "scaler",
    "rng",
    "loss_scaler",
    "grad",
    "callbacks",
    "loops",
)


def open_torch(path: Path, *, trust: bool = False) -> Any:
    """Open what ``torch.save`` wrote; no data of a tensor is read.

    Parameters
    ----------
    trust
        Let objects of other classes than the common inert ones be made, by the code of their
        packages. Whoever wrote the file decides what is run then.

    Returns
    -------
    The object as it was saved: dicts, lists, tuples, text and numbers are themselves; a tensor is
    a `StoredTensor`, named for its place in the object (``model.wte.weight``); a namespace keeps
    its entries; for anything else stands an inert `Opaque`.

    Raises
    ------
    RankscopeError
        If the file is damaged, or of another kind; or, with the reason ``unsafe-pickle``, if it
        names classes that are not known to be harmless.
    """
    with open_regular(path) as (file, size):
        return _read(path, FilePart(file, 0, size), trust=trust)


def open_torch_at(path: Path, start: int, size: int, *, trust: bool = False) -> Any:
    """Open what ``torch.save`` wrote into ``size`` bytes of a file; else as `open_torch`."""
    with open_regular(path) as (file, there):
        if start < 0 or size < 0 or start + size > there:
            message = f"is cut short: it has {there} bytes, and not {start + size}"
            raise RankscopeError(message, path=path)
        return _read(path, FilePart(file, start, size), trust=trust)


def _read(path: Path, part: FilePart, *, trust: bool) -> Any:
    read = read_zip if part.bytes_at(0, 2) == b"PK" else read_pickles
    return _placed(read(path, part, trust=trust), path)


def _placed(found: Any, path: Path) -> Any:
    """The same with tensors that are named for their places."""
    done: dict[int, Any] = {}

    def placed(one: Any, place: str, depth: int) -> Any:
        if isinstance(one, StoredTensor):
            return replace(one, name=place)
        if isinstance(one, HeldPiece):
            return one.named(place)
        if not isinstance(one, dict | list | tuple | SimpleNamespace):
            return one
        if depth > MAX_DEPTH or len(place) > MAX_NAME:
            raise RankscopeError("holds containers nested too deeply", path=path)
        if id(one) not in done:
            done[id(one)] = None  # a container that holds itself holds nothing there
            done[id(one)] = rebuilt(one, place, depth + 1)
        return done[id(one)]

    def rebuilt(one: Any, place: str, depth: int) -> Any:
        if isinstance(one, dict):
            return {key: placed(held, _below(place, key), depth) for key, held in one.items()}
        if isinstance(one, SimpleNamespace):
            return SimpleNamespace(**rebuilt(vars(one), place, depth))
        entries = [placed(held, _below(place, index), depth) for index, held in enumerate(one)]
        return entries if isinstance(one, list) else tuple(entries)

    return placed(found, "", 0)


def _below(place: str, key: Any) -> str:
    name = str(key)[: MAX_NAME + 1]
    return f"{place}.{name}" if place else name


def largest_table(found: Any) -> tuple[str, dict[str, StoredTensor]]:
    """The largest mapping of names to tensors in a saved object, and the key that it was under.

    Where there is something under a key that trainers give to a model, the largest of these tables
    is taken, or the tensors beside them; else all of the object but the state of an optimizer.
    Tables in tables are joined, their keys with dots; tensors are named by their keys in the whole.
    The key is empty for the object itself, and the table where there are no tensors.
    """
    if not isinstance(found, dict):
        return "", joined(found)  # a part of a module may well be called model
    tables = {key: table for key in MODEL_KEYS if (table := joined(found.get(key)))}
    rest = {
        key: value
        for key, value in found.items()
        if key not in MODEL_KEYS
        and not str(key).lower().startswith(OTHER_KEYS)
        and (not tables or isinstance(value, StoredTensor))
    }
    tables[""] = joined(rest)
    key = max(tables, key=lambda key: sum(math.prod(t.shape) for t in tables[key].values()))
    return key, tables[key]


def joined(found: Any) -> dict[str, StoredTensor]:
    """All tensors in tables in tables, by their keys with dots between."""
    return {
        place: replace(leaf, name=place)
        for place, leaf in iter_leaves(found)
        if place and isinstance(leaf, StoredTensor)
    }


def refuse_pieces(table: Any, path: Path) -> None:
    """Refuse a file that has, of some of its tensors, only what one of several processes held.

    Raises
    ------
    RankscopeError
        With the reason ``slices``, for the first of them.
    """
    for name, leaf in iter_leaves(table):
        if isinstance(leaf, HeldPiece):
            message = f"{leaf.message}: save whole weights, or give all files with such slices"
            raise RankscopeError(message, path=path, tensor=name, reason="slices")


def iter_leaves(found: Any) -> Iterator[tuple[str, Any]]:
    """Everything in tables in tables that is no table, with its keys and dots between."""
    waiting, seen = [("", found)], set()
    while waiting:
        place, one = waiting.pop()
        entries = _entries(one)
        if entries is None:
            yield place, one
        elif id(one) not in seen:
            seen.add(id(one))  # a table within many tables would be met without end
            waiting += [(_below(place, key), held) for key, held in reversed(entries.items())]


def _entries(found: Any) -> dict[Any, Any] | None:
    """What a table holds; for a module, which trusted code can have made, its parts."""
    if isinstance(found, dict):
        return found
    parts = getattr(found, "__dict__", {})
    kinds = ("_parameters", "_buffers", "_modules")
    if not all(isinstance(parts.get(kind), dict) for kind in kinds):
        return None
    return {key: value for kind in kinds for key, value in parts[kind].items()}
