"""The stack machine that pickles are programs for, without the power to import or call anything.

It knows the operations of Python's own unpickler, but a name in a pickle means only what a table of
inert stand-ins says. It also refuses what would make the original slow or large: memo slots that
reserve gigabytes, keys whose hash takes for ever, large objects that a few bytes copy again and
again. What is refused so is in `limits`.

Why not ``torch.load(weights_only=True, mmap=True)``? About 1,100 lines (this module, `pickles`,
`inert_names`, `torch_tensors`, `torch_script`, `torch_before_1_6`) are the price of three things.

- Analysis needs no torch, neither its gigabytes on disk nor its seconds at every start.
- Nothing in a pickle runs, and one unknown object costs only itself. ``weights_only`` refuses the
  whole file for a single settings object of the trainer, which most training checkpoints contain.
- Opening lists tensors and reads none. ``mmap`` does not work for files from before torch 1.6 or
  for files within files (distributed checkpoints, agents); it does not compare checksums; and if a
  trainer truncates the mapped file, the process is killed.

Torch would also not say which piece of a DTensor or ShardedTensor a file has without the process
group that wrote it, and would run the code in a TorchScript archive.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

from rankscope.checkpoints.files.inert_names import Opaque, StandIn, safe_key
from rankscope.checkpoints.limits import (
    DEAR,
    MAX_COPIED,
    MAX_MARKS,
    MAX_OPERATIONS,
    PER_TENSOR,
    over_limit,
)

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Machine:
    """The stack, the marks in it and the memo; one method per operation."""

    def __init__(
        self,
        names: Mapping[str, Any],
        persistent: Callable[[Any], Any] | None,
        *,
        tensors: int = 0,
    ) -> None:
        self.names, self.persistent = names, persistent
        self.operations_left = MAX_OPERATIONS + PER_TENSOR * tensors
        self.copies_left = MAX_COPIED + PER_TENSOR * tensors
        self.unknown: dict[str, None] = {}  # names, in the order of the pickle
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks beneath the marks
        self.memo: dict[int, Any] = {}

    def run(self, file: BinaryIO) -> Any:
        """Run the program and return what it leaves on the stack."""
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            self.operations_left -= 1
            if self.operations_left < 0:
                raise over_limit("holds a pickle of more objects than its tensors explain")
            if name in _PLAIN:
                self.stack.append(argument)
            elif name in _PUTS:
                self._put(argument)
            elif name in _GETS:
                self._get(argument)
            elif name in _IGNORED:
                continue
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _OPERATIONS:
                _OPERATIONS[name](self, argument)
            else:
                raise ValueError(f"has the unknown operation {name}")
        return self.stack.pop()

    def _put(self, slot: Any) -> None:
        self.memo[len(self.memo) if slot is None else slot] = self.stack[-1]

    def _get(self, slot: Any) -> None:
        if slot not in self.memo:
            raise ValueError("reads an empty slot of its memo")
        self.stack.append(self.memo[slot])

    def _marked(self) -> list[Any]:
        """Pop the last mark and return everything above it."""
        if not self.below:
            raise ValueError("takes more marks than there are")
        above, self.stack = self.stack, self.below.pop()
        return above

    def _mark(self, _: Any) -> None:
        if len(self.below) == MAX_MARKS:
            raise over_limit(
                f"holds a pickle that is nested too deeply: more than {MAX_MARKS} levels"
            )
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def _pop_mark(self, _: Any) -> None:
        self._marked()

    def _make(self, kind: Callable[[Any], Any], _: Any) -> None:
        """Push a new container with what is above the mark."""
        above = self._marked()
        self.stack.append(kind(above))

    def _tuple(self, count: int, _: Any) -> None:
        self.stack[len(self.stack) - count :] = [tuple(self._last(count))]

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("takes more from the stack than is there")
        return self.stack[len(self.stack) - count :]

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        _extend(self.stack[-1], [value])

    def _appends(self, _: Any) -> None:
        above = self._marked()
        _extend(self.stack[-1], above)

    def _setitem(self, _: Any) -> None:
        pair = self._last(2)
        del self.stack[-2:]
        _set_items(self.stack[-1], pair)

    def _setitems(self, _: Any) -> None:
        above = self._marked()
        _set_items(self.stack[-1], above)

    def _additems(self, _: Any) -> None:
        above = self._marked()
        if type(self.stack[-1]) is set:
            self.stack[-1].update(map(safe_key, above))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_named(module, name)

    def _stack_global(self, _: Any) -> None:
        module, name = self._last(2)
        del self.stack[-2:]
        self._push_named(module, name)

    def _push_named(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("names a class by something other than text")
        known = f"{PYTHON_2.get(module, module)}.{name}"
        if known not in self.names:
            self.unknown[f"{module}.{name}"] = None
        meant = self.names.get(known, partial(Opaque, known))
        self.stack.append(StandIn(known, meant) if callable(meant) else meant)

    def _reduce(self, _: Any) -> None:
        made_of, args = self._last(2)
        self.stack[-2:] = [self._called(made_of, args)]

    def _newobj_ex(self, _: Any) -> None:
        made_of, args, named = self._last(3)
        made = self._called(made_of, args)
        if isinstance(made, Opaque) and isinstance(named, dict):
            self._count_copies(named)
            made.items |= named
        self.stack[-3:] = [made]

    def _obj(self, _: Any) -> None:
        made_of, *args = self._marked()
        self.stack.append(self._called(made_of, args))

    def _inst(self, argument: str) -> None:
        args = self._marked()
        self._global(argument)
        self.stack.append(self._called(self.stack.pop(), args))

    def _called(self, made_of: Any, args: Any) -> Any:
        if not isinstance(made_of, Opaque | StandIn) or not isinstance(args, tuple | list):
            raise ValueError("calls something that is not a class")
        self._count_copies(args, times=DEAR)
        for argument in args:
            self._count_copies(argument)
        if isinstance(made_of, Opaque):  # an unknown name may have made something callable
            return Opaque(made_of.name, made_of, *args)
        return made_of(*args)

    def _count_copies(self, copied: Any, *, times: int = 1) -> None:
        """Count what a call may copy, since a few bytes can repeat a large object."""
        self.copies_left -= times * _size(copied)
        if self.copies_left < 0:
            raise over_limit("holds a pickle whose calls copy too much")

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if isinstance(built, SimpleNamespace) and isinstance(state, dict):
            self._count_copies(state, times=DEAR)
            vars(built).update((str(key), value) for key, value in state.items())
        elif isinstance(built, Opaque):
            built.state = state

    def _persistent(self, argument: Any) -> None:
        identity = self.stack.pop() if argument is None else argument
        if self.persistent is None:
            raise ValueError("refers to something outside of it")
        self.stack.append(self.persistent(identity))


def _size(argument: Any) -> int:
    """Entries of a container; letters of a text count less."""
    if isinstance(argument, _TEXTS):
        return len(argument) // 64
    return len(argument) if isinstance(argument, _CONTAINERS) else 0


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Opaque):
        target.appended.extend(values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise ValueError("appends to something that is not a list")


def _set_items(target: Any, flat: list[Any]) -> None:
    items = target.items if isinstance(target, Opaque) else target
    if isinstance(items, dict):
        items.update(zip(map(safe_key, flat[::2]), flat[1::2], strict=True))
    else:
        raise ValueError("sets items of something that is not a dict")


def _dict(flat: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    _set_items(made, flat)
    return made


_PLAIN = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_TEXTS = (str, bytes, bytearray)  # not made anew a million times, as a union of types would be
_CONTAINERS = (list, tuple, dict, set, frozenset)
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_IGNORED = {"PROTO", "FRAME", "STOP"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_OPERATIONS: Mapping[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "LIST": lambda machine, _: machine._make(list, _),
    "TUPLE": lambda machine, _: machine._make(tuple, _),
    "DICT": lambda machine, _: machine._make(_dict, _),
    "FROZENSET": lambda machine, _: machine._make(lambda a: frozenset(map(safe_key, a)), _),
    "TUPLE1": lambda machine, _: machine._tuple(1, _),
    "TUPLE2": lambda machine, _: machine._tuple(2, _),
    "TUPLE3": lambda machine, _: machine._tuple(3, _),
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._setitem,
    "SETITEMS": Machine._setitems,
    "ADDITEMS": Machine._additems,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._newobj_ex,
    "OBJ": Machine._obj,
    "INST": Machine._inst,
    "BUILD": Machine._build,
    "PERSID": Machine._persistent,
    "BINPERSID": Machine._persistent,
}
