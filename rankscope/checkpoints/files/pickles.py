"""Pickles, read without running them: a pickle is a program, and may name and call anything."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rankscope.checkpoints.files.pickle_machine import Machine, Opaque, StandIn, safe_key
from rankscope.errors import RankscopeError, printable

__all__ = ["MAX_BYTES", "Opaque", "StandIn", "read_pickle", "safe_key", "skim_pickle"]

MAX_BYTES = 256 * 2**20  # of one pickle; the data of tensors lies outside of it
SHOWN = 10  # names in an error


def read_pickle(
    file: BinaryIO,
    names: Mapping[str, Any],
    *,
    path: str | Path,
    persistent: Callable[[Any], Any] | None = None,
    trust: bool = False,
) -> Any:
    """Read one pickle, and leave the file behind it.

    Parameters
    ----------
    file
        Holds no more than may be read: a length in the pickle may claim all of it.
    names
        Dotted name → a function that makes an inert object from the arguments, or a value.
    path
        For errors.
    persistent
        Turns a persistent id, by which a pickle refers to what lies outside of it, into an object.
    trust
        Use Python's unpickler, which imports and calls what ``names`` lacks; of ``names`` only
        those of torch count then.

    Raises
    ------
    RankscopeError
        If the pickle is damaged; or, with the reason ``unsafe-pickle``, if it names anything else.
    """
    if trust:
        return _trusted(file, names, persistent, path)
    machine, found = _run(file, names, persistent, path)
    if machine.unknown:
        raise RankscopeError(_unsafe(machine.unknown), path=path, reason="unsafe-pickle")
    return found


def skim_pickle(
    file: BinaryIO,
    names: Mapping[str, Any],
    *,
    path: str | Path,
    persistent: Callable[[Any], Any],
) -> None:
    """Go past one pickle for what it refers to outside of it; whatever it names, nothing is run.

    The parameters are those of `read_pickle`.

    Raises
    ------
    RankscopeError
        If the pickle is damaged.
    """
    _run(file, names, persistent, path)


def _run(
    file: BinaryIO,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None,
    path: str | Path,
) -> tuple[Machine, Any]:
    machine = Machine(names, persistent)
    try:
        return machine, machine.run(file)
    except RankscopeError:
        raise
    except Exception as error:  # a file can bring about any of them
        if machine.unknown:  # which may be why
            raise RankscopeError(
                _unsafe(machine.unknown), path=path, reason="unsafe-pickle"
            ) from None
        raise _damaged(error, path) from None


def _damaged(error: Exception, path: str | Path) -> RankscopeError:
    what = (str(error) or type(error).__name__).splitlines()[0]
    return RankscopeError(f"holds a damaged pickle ({printable(what)})", path=path)


def _unsafe(unknown: Mapping[str, None]) -> str:
    shown = [printable(name, limit=80) for name in list(unknown)[:SHOWN]]
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    return (
        f"holds objects that only code can make ({', '.join(shown)}{more}): "
        "--trust-pickle lets that code run"
    )


def _trusted(
    file: BinaryIO,
    names: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None,
    path: str | Path,
) -> Any:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            known = f"{module}.{name}"
            if module.partition(".")[0] == "torch" and known in names:
                return names[known]
            return super().find_class(module, name)

        def persistent_load(self, pid: Any) -> Any:
            if persistent is None:
                raise pickle.UnpicklingError("refers to what lies outside of it")
            return persistent(pid)

    try:
        return Unpickler(file).load()
    except RankscopeError:
        raise
    except Exception as error:  # the code of any package runs here
        raise _damaged(error, path) from error
