"""The factors among the tensors of a checkpoint, separated and made into matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.adapters.factor_products import Made, made_of_pair
from rankscope.checkpoints.adapters.grouping import (
    Cell,
    cells_of,
    is_strict,
    table_for,
    tables_of,
)
from rankscope.checkpoints.adapters.pairing import fault_in
from rankscope.checkpoints.adapters.product_forms import VERA, shared_delta, special_delta
from rankscope.checkpoints.adapters.scaling import Scales, scale_in, scales_beside
from rankscope.checkpoints.adapters.wrapped_names import (
    model_path,
    odd_ones,
    replaced,
    unflattened,
    unwrapped,
)
from rankscope.checkpoints.contents import Adapter, Class, Delta, Skip
from rankscope.checkpoints.families.factor_tables import FactorTable
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable

SHARED = re.compile(r"(?:.*\.)?vera_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?")


@dataclass(frozen=True)
class Parted:
    """The tensors of a checkpoint, separated into weights, deltas and factors.

    Attributes
    ----------
    tensors
        Everything that is not a factor, by plain name, and weights that are products.
    adapters
        Deltas by the module whose weight each changes.
    factors
        Factors with an activation between them, by name: the module, and the matrix as
        (outputs, inputs).
    apart
        Modules whose effective weight is not the stored weight plus the delta.
    uncut
        Modules whose delta may have more columns than their weight: those of the widest module.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: Mapping[str, Delta] = field(default_factory=dict)
    factors: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()
    uncut: frozenset[str] = frozenset()
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
    aside: tuple[Classed, ...] = ()


def factors_among(
    tensors: Mapping[str, Tensor],
    options: Options,
    config: Mapping[str, Any],
    *,
    scales: Scales | None = None,
) -> Parted:
    """Separate factors from weights, and make the matrix of every pair.

    It reads only scales: tensors of one number, and small files beside the weights.

    Parameters
    ----------
    tensors
        By plain name.
    config
        That of the model, which may state the scale.
    scales
        What is stated about scales; None to look beside the files of the factors.
    """
    tables = tables_of(options)
    cells = cells_of(tensors, tables)
    if scales is None:
        factors = (tensor for cell in cells for tensor in cell.tensors.values())
        scales = scales_beside(factors, config) if cells else Scales()
    work = _Parting(dict(tensors), tables, scales)
    for cell in work.iter_chosen(cells):
        work.take(cell)
    return work.result(has_factors=bool(cells))


@dataclass
class _Parting:
    """The tensors that are left, and what was made of the others."""

    rest: dict[str, Tensor]
    tables: Sequence[FactorTable]
    scales: Scales
    adapters: dict[str, Delta] = field(default_factory=dict)
    factors: dict[str, tuple[str, Tensor]] = field(default_factory=dict)
    uncut: set[str] = field(default_factory=set)
    skips: dict[str, Skip] = field(default_factory=dict)  # one per module
    aside: list[Classed] = field(default_factory=list)

    def iter_chosen(self, cells: list[Cell]) -> Iterator[Cell]:
        """The cells of one adapter if there are several; numbered adapters are refused."""
        names = sorted({cell.adapter for cell in cells}, key=_preferred)
        numbered = [name for name in names if name.isdecimal()]
        for cell in cells:
            if cell.adapter in numbered[1:] or (len(numbered) > 1 and cell.adapter in numbered):
                message = "has several numbered pairs of factors, and nothing says which are active"
                self._refuse(cell, "several-factors", message)
            elif cell.adapter == names[0]:
                yield cell
            else:
                read = names[0] or "the unnamed adapter"
                message = f"is left out: {read} is read instead"
                skip = Skip(cell.path, cell.adapter, "other-adapter", message)
                self.skips.setdefault(f"the adapter {cell.adapter}", skip)
                self._put_aside(cell.names.values(), "not understood", message)

    def take(self, cell: Cell) -> None:
        """Make matrices of the factors in a cell; refuse what is left as half a pair."""
        module = unflattened(model_path(cell.module))
        try:
            self._take_special(cell, module)
            while (table := table_for(cell, self.tables, self.rest)) is not None:
                target = table.target_in(module)
                made = made_of_pair(cell, target, table, tensors=self.rest, scales=self.scales)
                self._put(target, made)
                cell.drop(table.needed)
            self._check_leftovers(cell)
        except RankscopeError as error:
            self._refuse(cell, error.reason, error.message)

    def result(self, *, has_factors: bool) -> Parted:
        """The result, with weights under the names that they have without adapters."""
        apart = frozenset(self._iter_apart(has_factors))
        for name in filter(SHARED.fullmatch, list(self.rest) if self.uncut else ()):
            del self.rest[name]
        for name in replaced(self.rest):
            self._put_aside([name], "no linear map", "its trained copy is used instead")
        rest = unwrapped(self.rest, self.adapters) if has_factors else self.rest
        return Parted(
            rest,
            self.adapters,
            self.factors,
            apart,
            frozenset(self.uncut),
            (*self.scales.skips, *self.skips.values()),
            _notes(self.adapters),
            tuple(self.aside),
        )

    def _iter_apart(self, has_factors: bool) -> Iterator[str]:
        """Modules whose weight is not base plus delta; these and odd tensors get a skip."""
        for name, (module, reason, message) in odd_ones(self.rest, has_factors).items():
            self.skips[module or name] = Skip(
                self.rest[name].paths[0], module or name, reason, message
            )
            self._put_aside([name], "not understood", message)
            if module:
                yield module

    def _take_special(self, cell: Cell, module: str) -> None:
        """Make the delta of a cell whose kind is not a product of two factors."""
        names = tuple(cell.names.values())
        if all(end in cell.tensors for end in VERA):
            self._put(module, Made(self._shared(cell), used=names))
            self.uncut.add(module)
            cell.drop(VERA)
            return
        name = f"{cell.module}.alpha"
        number = scale_in("alpha", self.rest[name], rank=1) if name in self.rest else None
        delta = special_delta(module, cell.tensors, self.scales, alpha=number)
        if delta is not None:
            made = Made(delta, used=names)
            made.put_aside([name], "part of", f"the adapter of {module}")
            self._put(module, made)
            cell.drop(tuple(cell.tensors))

    def _shared(self, cell: Cell) -> Adapter:
        found = ((name, SHARED.fullmatch(name)) for name in self.rest)
        sides = {
            match["side"]: self.rest[name]
            for name, match in found
            if match is not None and (match["adapter"] or "") in ("", cell.adapter)
        }
        if len(sides) < 2:
            raise RankscopeError(
                "its projections are not in the file, which has only the seed that they were drawn "
                "with",
                reason="vera-projection",
            )
        return shared_delta(cell.tensors, sides["A"], sides["B"])

    def _put(self, module: str, made: Made) -> None:
        """Keep what was made, and remove its tensors from the others."""
        weight = f"{module}.weight"
        if made.weight is not None and weight in self.rest:
            message = (
                "has factors that make a weight, and a weight beside them: nothing says which of "
                "the two the model uses"
            )
            self._put_aside([weight], "not understood", message)
            raise RankscopeError(message, reason="two-weights")
        if made.delta is not None and module in self.adapters:
            message = "has two deltas, and nothing says which is active"
            raise RankscopeError(message, reason="several-factors")
        for name in made.used:  # they are accounted for as parts of the matrix
            self.rest.pop(name, None)
        for name, kind, reason in made.aside:
            self._put_aside([name], kind, reason)
        if made.delta is not None:
            self.adapters[module] = made.delta
        if made.weight is not None:
            self.rest[weight] = made.weight
        self.factors |= {name: (module, factor) for name, factor in made.factors.items()}

    def _check_leftovers(self, cell: Cell) -> None:
        """Refuse half a pair if its name can only be that of a factor."""
        strict = {end: one for end, one in cell.tensors.items() if is_strict([end])}
        beside = {f"{cell.module}.{end}" for table in self.tables for end in table.unless}
        if not strict or beside & self.rest.keys():
            return
        table = next((t for t in self.tables if {t.left, t.right} & strict.keys()), None)
        fault = table and fault_in(table, strict.get(table.left), strict.get(table.right))
        raise RankscopeError(fault or "lacks a factor of its kind", reason="adapter-incomplete")

    def _refuse(self, cell: Cell, reason: str, message: str) -> None:
        """Leave out the factors of a cell, with a skip for the module."""
        module = unflattened(model_path(cell.module))
        self.skips.setdefault(module, Skip(cell.path, module, reason, message))
        self._put_aside(cell.names.values(), "not understood", message)

    def _put_aside(self, names: Iterable[str], kind: Class, reason: str) -> None:
        for name in list(names):
            tensor = self.rest.pop(name, None)
            if tensor is not None:
                self.aside.append(Classed(tensor, kind, reason))


def _preferred(name: str) -> tuple[bool, str]:
    return name not in ("", "default"), name


def _notes(adapters: Mapping[str, Delta]) -> tuple[Skip, ...]:
    """A note on adapters whose scale nothing states."""
    unknown = [module for module, delta in adapters.items() if delta.scale is None]
    if not unknown:
        return ()
    path = adapters[unknown[0]].tensors[0].paths[0]
    which = printable(unknown[0], limit=80)
    count = f"{len(unknown)} adapters, such as {which}" if len(unknown) > 1 else which
    message = (
        f"no file states the scale of {count}, or one states another rank: ranks do not depend on "
        "it, norms are left empty, and the weight that the model uses is not known"
    )
    return (Skip(path, "", "scale-unknown", message),)
