"""Pickles, read without running them: a pickle is a program that may name and call anything."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rankscope.checkpoints.files.pickle_machine import Machine
from rankscope.errors import RankscopeError, printable

SHOWN = 4  # names in a line


def read_pickle(
    file: BinaryIO, names: Mapping[str, Any], *, path: str | Path, tensors: int = 0
) -> Any:
    """Read one pickle that may not name anything unknown, and leave the file at its end.

    Parameters
    ----------
    file
        Holds no more than may be read: a length in the pickle can claim all of it.
    names
        Dotted name → a function that makes an inert object from the arguments, or a value.
    path
        For errors.
    tensors
        How many tensors it may describe, each of which allows it some operations more.

    Raises
    ------
    RankscopeError
        If the pickle is damaged; with the reason ``over-limit``, if it makes more than its tensors
        explain; or, with the reason ``unsafe-pickle``, if it names anything else.
    """
    machine, content = _run(file, names, None, path, tensors=tensors)
    if machine.unknown:
        raise unsafe(machine.unknown, path)
    return content


def read_object(
    file: BinaryIO,
    names: Mapping[str, Any],
    *,
    path: str | Path,
    persistent: Callable[[Any], Any],
    tensors: int = 0,
    trust: bool = False,
) -> tuple[Any, tuple[str, ...]]:
    """Read one pickle in which unknown names stand for objects that are not opened.

    Nothing is imported or run. The other parameters are those of `read_pickle`.

    Parameters
    ----------
    persistent
        Turns a persistent id, by which a pickle refers to something outside of it, into an object.
    trust
        Use Python's unpickler, which imports and calls whatever the pickle names. Of ``names`` only
        those of torch are used then.

    Returns
    -------
    The object, and the unknown names in it.

    Raises
    ------
    RankscopeError
        If the pickle is damaged; with the reason ``unsafe-pickle`` if an unknown name may be the
        cause.
    """
    if trust:
        return _trusted(file, names, persistent, path), ()
    machine, content = _run(file, names, persistent, path, tensors=tensors)
    return content, tuple(machine.unknown)


def skim_pickle(
    file: BinaryIO,
    names: Mapping[str, Any],
    *,
    path: str | Path,
    persistent: Callable[[Any], Any],
    tensors: int = 0,
) -> None:
    """Read past one pickle for what it refers to outside of it; nothing that it names is run.

    The parameters are those of `read_object`.

    Raises
    ------
    RankscopeError
        If the pickle is damaged.
    """
    _run(file, names, persistent, path, tensors=tensors)


def _run(
    file: BinaryIO,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None,
    path: str | Path,
    *,
    tensors: int,
) -> tuple[Machine, Any]:
    machine = Machine(names, persistent, tensors=tensors)
    try:
        return machine, machine.run(file)
    except RankscopeError as error:
        error.path = error.path or str(path)
        raise
    except Exception as error:  # a file can cause any of them
        if machine.unknown:  # which may be the cause
            raise unsafe(machine.unknown, path) from None
        raise _damaged(error, path) from None


def _damaged(error: Exception, path: str | Path) -> RankscopeError:
    what = (str(error) or type(error).__name__).splitlines()[0]
    message = f"holds a damaged pickle ({printable(what)})"
    return RankscopeError(message, path=path, reason="damaged")


def unsafe(unknown: Iterable[str], path: str | Path) -> RankscopeError:
    """The refusal of a pickle for the classes that it names."""
    return RankscopeError(
        f"holds objects that only code can make ({listed(unknown)}): "
        "if you trust the writer of the file, set `trust_pickle`, which runs that code",
        path=path,
        reason="unsafe-pickle",
    )


def listed(unknown: Iterable[str]) -> str:
    """The first few names of classes, and how many more there are."""
    names = list(unknown)
    shown = [printable(name, limit=80) for name in names[:SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _trusted(
    file: BinaryIO,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any],
    path: str | Path,
) -> Any:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            known = f"{module}.{name}"
            if module.partition(".")[0] == "torch" and known in names:
                return names[known]
            return super().find_class(module, name)

        def persistent_load(self, pid: Any) -> Any:
            return persistent(pid)

    try:
        return Unpickler(file).load()
    except RankscopeError:
        raise
    except Exception as error:  # the code of any package runs here
        raise _damaged(error, path) from error
