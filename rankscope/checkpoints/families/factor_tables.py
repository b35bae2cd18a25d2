"""`FactorTable`: which tensors of a module make one matrix, and how; read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from rankscope.errors import RankscopeError

SIDES, MAKES = ("left", "right"), ("change", "weight")
ENDS = ("left", "right", "alpha", "scaling", "tanh", "diagonal", "between")
LISTS = ("transposed", "sparse", "spare", "unless")


@dataclass(frozen=True)
class FactorTable:
    """Two tensors of a module whose product is a matrix; see the page in ``docs`` on families.

    Attributes
    ----------
    left, right
        Ends of the names of the factors: ``left`` is (outputs, r), ``right`` is (r, inputs). An end
        that starts with a letter is a part of the path by itself. The name of an adapter and
        ``weight`` may follow.
    makes
        ``change``: the product is added to the module's weight. ``weight``: it is the weight.
    transposed
        Which of the two are stored the other way round. Where only the other way gives the two a
        small side in common, it is taken.
    scale
        Factor of the product; None where a tensor or a file beside the weights states it, or none.
    alpha, scaling, tanh
        End of the tensor that holds the factor: times r, as it is, or before its tanh is taken.
    diagonal
        End of the tensor of r numbers that stand between the factors.
    sparse
        Ends of two tensors: places in row-major order of (outputs, inputs), and values to add.
    between
        What lies between the factors where that is not a matrix, such as an activation. There is no
        product then: each factor is measured by itself.
    spare
        Ends of other tensors of the module, as patterns, that do not belong to its matrix.
    unless
        Ends of tensors beside which the two are something else.
    """

    name: str
    left: str
    right: str
    makes: str = "change"
    transposed: tuple[str, ...] = ()
    scale: float | None = None
    alpha: str = ""
    scaling: str = ""
    tanh: str = ""
    diagonal: str = ""
    sparse: tuple[str, ...] = ()
    between: str = ""
    spare: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """Ends of the tensors that must be there."""
        return tuple(filter(None, (self.left, self.right, self.diagonal, *self.sparse)))


def with_separator(end: str) -> str:
    """An end as it stands behind the module's path: one that starts with a letter after a dot."""
    return f".{end}" if end[0].isalnum() else end


@cache
def known_tables() -> tuple[FactorTable, ...]:
    """The tables that hold for every family, those that ask for most first."""
    text = (resources.files("rankscope.checkpoints.families") / "factors.toml").read_text("utf-8")
    return parsed_tables(tomllib.loads(text)["factors"], _fault)


def parsed_tables(
    entries: Mapping[str, Any], fault: Callable[[str], RankscopeError]
) -> tuple[FactorTable, ...]:
    """Tables of the entry ``factors`` of a TOML file, those that ask for most first.

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
        raise fault(f"factors {name!r} have no {', '.join(sorted(unknown))}")
    for key in ENDS:
        value = entry.get(key, "")
        if not isinstance(value, str) or (key in SIDES and not value):
            raise fault(f"factors {name!r}: {key} must be text, the end of a tensor's name")
    for key in LISTS:
        value = entry.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            raise fault(f"factors {name!r}: {key} must be a list of text")
    scale = entry.get("scale")
    if scale is not None and type(scale) not in (int, float):
        raise fault(f"factors {name!r}: scale must be a number")
    if entry.get("makes", "change") not in MAKES or not set(entry.get("transposed", ())) <= {
        *SIDES
    }:
        raise fault(f"factors {name!r}: makes is change or weight, transposed lists left and right")
    if len(entry.get("sparse", [])) not in (0, 2):
        raise fault(f"factors {name!r}: sparse names two tensors, places and values")
    lists = {key: tuple(entry[key]) for key in LISTS if key in entry}
    return FactorTable(**{"name": name, **entry, **lists})


def _fault(message: str) -> RankscopeError:
    return RankscopeError(message, path="factors.toml")
