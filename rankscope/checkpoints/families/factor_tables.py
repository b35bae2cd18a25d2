"""`FactorTable`: which tensors of a module make one matrix, and how. Read from TOML."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from rankscope.errors import RankscopeError

SIDES, MAKES = ("left", "right"), ("change", "weight")
ENDS = ("left", "right", "alpha", "scaling", "tanh", "diagonal", "between", "called")
LISTS = ("transposed", "sparse", "spare", "beside", "unless")


@dataclass(frozen=True)
class FactorTable:
    """Two tensors of a module whose product is a matrix; see ``docs/checkpoints.md``.

    Attributes
    ----------
    left, right
        Ends of the names of the factors: ``left`` is (outputs, r), ``right`` is (r, inputs). An end
        that starts with a letter or digit is a whole part of the path. The name of an adapter and
        ``weight`` may follow.
    makes
        ``change``: the product is added to the weight of the module. ``weight``: it is the weight.
    called
        The end of the path of the matrix in the model, if that is not the path of the module.
    transposed
        Which of the two are stored the other way round. If only the other way gives the two a small
        side in common, that is used.
    scale
        Factor of the product; None if a tensor or a file beside the weights states it, or nothing.
    alpha, scaling, tanh
        End of the tensor that holds the factor: times r, as it is, or before its tanh is taken.
    diagonal
        End of the tensor with r numbers between the factors.
    sparse
        Ends of two tensors: positions in row-major order of (outputs, inputs), and values to add.
    between
        What is between the factors if they are not simply multiplied, such as an activation. Each
        factor is then measured by itself.
    spare
        Ends of other tensors of the module, as patterns, that do not belong to its matrix.
    beside
        Ends of tensors that the module must have too.
    unless
        Ends of tensors that the module must not have.
    """

    name: str
    left: str
    right: str
    makes: str = "change"
    called: str = ""
    transposed: tuple[str, ...] = ()
    scale: float | None = None
    alpha: str = ""
    scaling: str = ""
    tanh: str = ""
    diagonal: str = ""
    sparse: tuple[str, ...] = ()
    between: str = ""
    spare: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Ends of the tensors that it is made of."""
        return tuple(filter(None, (self.left, self.right, self.diagonal, *self.sparse)))

    def is_possible(self, module: str, tensors: Collection[str]) -> bool:
        """Whether a module has the other tensors that it must have."""
        return all(f"{module}.{end}" in tensors for end in self.beside)

    def is_ruled_out(self, module: str, tensors: Collection[str]) -> bool:
        """Whether a module has a tensor that it must not have."""
        return any(f"{module}.{end}" in tensors for end in self.unless)

    def target_in(self, module: str) -> str:
        """Path of the matrix that is made of the factors in a module."""
        return f"{module}.{self.called}" if self.called else module


def with_separator(end: str) -> str:
    """An end as it follows the path of the module: after a dot if it starts with a letter."""
    return f".{end}" if end[0].isalnum() else end


@cache
def known_tables() -> tuple[FactorTable, ...]:
    """The tables that apply to every family, the most specific first."""
    text = (resources.files("rankscope.checkpoints.families") / "factors.toml").read_text("utf-8")
    return parsed_tables(tomllib.loads(text)["factors"], _fault)


def parsed_tables(
    entries: Mapping[str, Any], fault: Callable[[str], RankscopeError]
) -> tuple[FactorTable, ...]:
    """Tables of the entry ``factors`` of a TOML file, the most specific first.

    Raises
    ------
    RankscopeError
        As ``fault`` makes it, if an entry is not a table of factors.
    """
    found = [_parsed(name, entry, fault) for name, entry in entries.items()]
    return tuple(sorted(found, key=lambda table: -len(table.needed)))


def _parsed(name: str, entry: Any, fault: Callable[[str], RankscopeError]) -> FactorTable:
    if not isinstance(entry, Mapping):
        raise fault(f"factors {name!r} must be a table with left and right")
    unknown = entry.keys() - {*ENDS, *LISTS, "makes", "scale"}
    if unknown:
        raise fault(f"factors {name!r} have unknown entries: {', '.join(sorted(unknown))}")
    for key in ENDS:
        value = entry.get(key, "")
        if not isinstance(value, str) or (key in SIDES and not value):
            raise fault(f"factors {name!r}: {key} must be text, the end of a tensor's name")
    for key in LISTS:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise fault(f"factors {name!r}: {key} must be a list of text")
    scale = entry.get("scale")
    if scale is not None and not is_number(scale):
        raise fault(f"factors {name!r}: scale must be a number")
    if entry.get("makes", "change") not in MAKES or not set(entry.get("transposed", ())) <= {
        *SIDES
    }:
        raise fault(f"factors {name!r}: makes is change or weight, transposed lists left and right")
    if len(entry.get("sparse", [])) not in (0, 2):
        raise fault(f"factors {name!r}: sparse names two tensors, positions and values")
    lists = {key: tuple(entry[key]) for key in LISTS if key in entry}
    return FactorTable(**{"name": name, **entry, **lists})


def is_number(value: Any) -> bool:
    """Whether a value of a TOML file is a number that a float can hold, and finite."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _fault(message: str) -> RankscopeError:
    return RankscopeError(message, path="factors.toml")
