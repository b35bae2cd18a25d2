"""Routines of LAPACK that numpy does not wrap, from the library that numpy or scipy brings.

They are looked up in the libraries that the extension modules of numpy and scipy are linked with,
so nothing is loaded that is not loaded anyway, and threads are counted once.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# The extension that is linked with LAPACK, below the package's folder.
LINKED = {"numpy": "linalg/_umath_linalg*", "scipy": "linalg/_flapack*"}
# As in the wheels with integers of 64 and 32 bits, and as in LAPACK itself.
SPELLINGS = ("scipy_{}_64_", "scipy_{}_", "{}_64_", "{}_")

Argument: TypeAlias = "bytes | int | NDArray[np.float64] | ctypes.c_int64"


class Routines:
    """Routines of one library, called by LAPACK's names.

    Integers are passed as 64 bits, by reference. A library whose integers have 32 bits reads the
    lower half, which comes first on all machines that `routines` accepts.
    """

    def __init__(self, library: ctypes.CDLL, spelling: str) -> None:
        self._library, self._spelling = library, spelling

    def has(self, name: str) -> bool:
        """Whether the library has a routine."""
        return hasattr(self._library, self._spelling.format(name))

    def call(self, name: str, *arguments: Argument) -> None:
        """Call a routine whose last argument is LAPACK's ``info``.

        Letters are `bytes`, matrices are in Fortran's order. Python's lock is released meanwhile.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the routine reports a failure.
        """
        info = ctypes.c_int64(0)
        letters = [ctypes.c_size_t(1) for one in arguments if isinstance(one, bytes)]
        routine = self._library[self._spelling.format(name)]
        routine.restype = None
        routine(*map(_passed, arguments), ctypes.byref(info), *letters)
        if info.value:
            raise np.linalg.LinAlgError(f"LAPACK's {name} failed with {info.value}")

    @property
    def kernel(self) -> str:
        """The processor that OpenBLAS chose its kernels for; empty if this is another library."""
        name = self._spelling.format("openblas_get_corename").removesuffix("_64_").rstrip("_")
        for suffix in ("64_", ""):
            if hasattr(self._library, name + suffix):
                get = self._library[name + suffix]
                get.restype = ctypes.c_char_p
                return (get() or b"").decode("ascii", "replace")
        return ""


def _passed(argument: Argument) -> object:
    if isinstance(argument, bytes):
        return ctypes.c_char_p(argument)
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.byref(ctypes.c_int64(argument) if isinstance(argument, int) else argument)


def routines(*names: str) -> Routines | None:
    """The first library that has all of these routines; None if there is none."""
    if sys.byteorder != "little":
        return None
    for library in _libraries():
        for found in (Routines(library, spelling) for spelling in SPELLINGS):
            if all(map(found.has, names)):
                return found
    return None


def _libraries() -> Iterator[ctypes.CDLL]:
    for package, pattern in LINKED.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            continue
        folder = Path(spec.origin).parent
        # Windows looks up names in a library itself only, not in those that it is linked with.
        beside = (folder.parent / f"{package}.libs").glob("*openblas*")
        for path in (*folder.glob(pattern), *beside):
            try:
                yield ctypes.CDLL(str(path))
            except OSError:
                continue
