"""Inert stand-ins for what a pickle names: Python, numpy and pathlib, and anything unknown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import numpy as np

from rankscope.checkpoints.limits import MAX_KEY, MAX_KEY_BITS, over_limit


@dataclass(frozen=True)
class StandIn:
    """What a name in a pickle means: the dotted name, and what a call of it makes."""

    name: str
    make: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Make the inert object."""
        return self.make(*args)


class Opaque:
    """An object that is not opened: the name of its class, its arguments and its state.

    Attributes
    ----------
    items, appended
        Entries and elements, where its class is a kind of dict or list.
    """

    __slots__ = ("appended", "args", "items", "name", "state")

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.args = name, args
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.appended: list[Any] = []

    def __repr__(self) -> str:
        return f"Opaque({self.name!r})"


def safe_key(key: Any) -> Any:
    """The key, or a text that stands for it: quick to hash, compare and print.

    Towers of tuples and sets are compared once for every path through them, 2**n for n levels.
    Tuples and numbers can also be chosen to have one hash, as (-1, -2) and (-2, -1) have, and then
    each is compared with all before it. The hash of a text is another in every process.
    """
    if key is None or isinstance(key, str | float | Opaque | StandIn):
        return key
    if isinstance(key, int) and key.bit_length() <= MAX_KEY_BITS:
        return key
    if _weight(key) > MAX_KEY:
        raise over_limit(f"holds a pickle with a key of more than {MAX_KEY} parts or letters")
    hash(key)  # a list is no key
    return repr(key)


def _weight(key: Any, *, is_part: bool = False) -> int:
    """Letters and parts of a key; more than `MAX_KEY` for what is not looked into."""
    if isinstance(key, str | bytes):
        return 1 + len(key)
    if isinstance(key, int):
        return 1 + key.bit_length() // 8
    if not isinstance(key, tuple | frozenset):
        return 1
    if is_part or len(key) > MAX_KEY:
        return MAX_KEY + 1
    return len(key) + sum(_weight(part, is_part=True) for part in key)


def _set(items: Any = ()) -> set[Any]:
    return set(map(safe_key, _sequence(items)))


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(map(safe_key, _sequence(items)))


def _sequence(items: Any) -> list[Any] | tuple[Any, ...]:
    """The items, if they are a list: from a range a small file would make a large object."""
    if not isinstance(items, list | tuple):
        raise ValueError("makes a container of something that is not a list")
    return items


def _dict(items: Any = ()) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    return {safe_key(key): value for key, value in _sequence(items)}


def _defaultdict(_: Any = None, items: Any = ()) -> dict[Any, Any]:
    return _dict(items)


def _deque(items: Any = (), _: Any = None) -> list[Any]:
    return list(_sequence(items))


def _encoded(text: Any, encoding: Any = "latin-1") -> bytes:
    """Bytes, which protocols before 3 have only as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError("encodes something that is not text")
    return text.encode(encoding)


def _bytes(text: Any = b"", encoding: Any = "latin-1") -> bytes:
    return text if isinstance(text, bytes) else _encoded(text, encoding)


def _bytearray(text: Any = b"", encoding: Any = "latin-1") -> bytearray:
    return bytearray(_bytes(text, encoding))


def _reconstructed(kind: Any, *_: Any) -> Any:
    """Object of a class without a pickling method of its own, in protocols before 2."""
    if not callable(kind):
        raise ValueError("makes an object of something that is not a class")
    return kind()


def _path(kind: type[PurePath], *parts: Any) -> PurePath:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("makes a path of something that is not text")
    return kind(*parts)


def _scalar(dtype: Any, raw: Any) -> Any:
    """A numpy number as one of Python's; an `Opaque` if it is not understood."""
    code = dtype.args[0] if isinstance(dtype, Opaque) and dtype.args else None
    state = dtype.state if isinstance(dtype, Opaque) else None
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    if not isinstance(raw, bytes) or code not in _NUMBERS or order not in ("<", ">", "|", "="):
        return Opaque("numpy.scalar")
    kind = np.dtype(code).newbyteorder(order)
    return np.frombuffer(raw, kind)[0].item() if len(raw) == kind.itemsize else Opaque("numpy")


_NUMBERS = {*("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"), "bool"}
_CLOSED = (
    *(f"builtins.{kind}" for kind in ("object", "type", "int", "float", "str", "bool")),
    *("numpy.dtype", "numpy.ndarray"),
    *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
    *("datetime.timezone",),
)
_ARRAYS = ("multiarray._reconstruct", "numeric._frombuffer")

NAMES: Mapping[str, Any] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _defaultdict,
    "collections.deque": _deque,
    "argparse.Namespace": SimpleNamespace,
    "types.SimpleNamespace": SimpleNamespace,
    "builtins.dict": _dict,
    "builtins.list": lambda items=(): list(_sequence(items)),
    "builtins.tuple": lambda items=(): tuple(_sequence(items)),
    "builtins.set": _set,
    "builtins.frozenset": _frozenset,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytearray,
    "builtins.complex": complex,
    "builtins.slice": slice,
    "builtins.range": range,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    **{
        f"{module}.{kind}": partial(_path, made)
        for module in ("pathlib", "pathlib._local")
        for kind, made in (
            ("Path", PurePosixPath),
            ("PosixPath", PurePosixPath),
            ("PurePosixPath", PurePosixPath),
            ("WindowsPath", PureWindowsPath),
            ("PureWindowsPath", PureWindowsPath),
        )
    },
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{
        f"numpy.{core}.{name}": partial(Opaque, f"numpy.{name}")
        for core in ("core", "_core")
        for name in _ARRAYS
    },
    **{name: partial(Opaque, name) for name in _CLOSED},
}
