"""`Cell`: the tensors of one module that are factors, recognised by their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rankscope.checkpoints.families.factor_tables import FactorTable, known_tables, with_separator
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.families.names import parts_in
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor

# Ends of names of deltas that are not a product of two factors.
KINDS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1"),
    *("lokr_t2", "vera_lambda_b", "vera_lambda_d", "lora_mid"),
)
NO_ADAPTER = ("weight", "bias")


@dataclass
class Cell:
    """The factors of one module and one adapter: tensors and names, by the ends of the names."""

    module: str
    adapter: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The file of the first of its tensors."""
        return next(iter(self.tensors.values())).paths[0]

    def drop(self, ends: Iterable[str]) -> None:
        """Forget the tensors with these ends."""
        for end in ends:
            self.tensors.pop(end, None)
            self.names.pop(end, None)


def tables_of(options: Options) -> tuple[FactorTable, ...]:
    """All tables, those of the user first."""
    own = () if options.family is None else options.family.factors
    theirs = (table for family in families().values() for table in family.factors)
    return (*own, *theirs, *known_tables())


def cells_of(tensors: Mapping[str, Tensor], tables: Sequence[FactorTable]) -> list[Cell]:
    """Tensors that are factors by the ends of their names, grouped by module.

    A tensor whose name only looks like that of a factor is not measured if its partner is missing.
    """
    ends = dict.fromkeys((*(end for table in tables for end in table.needed), *KINDS))
    cells: dict[tuple[str, str], Cell] = {}
    written = {with_separator(end): end for end in ends}
    tails = tuple(written)
    last = tuple({_last_word(tail) for tail in tails})
    if not any(part.endswith(last) for part in parts_in(tensors)):
        return []
    for name, tensor in tensors.items():
        found = _placed(name, written, tails)
        if found is not None:
            module, adapter, end = found
            cell = cells.setdefault((module, adapter), Cell(module, adapter))
            cell.tensors[end], cell.names[end] = tensor, name
    for cell in cells.values():
        possible = (table for table in tables if table.is_possible(cell.module, tensors))
        known = {*KINDS, *(end for table in possible for end in table.needed)}
        cell.drop([end for end in cell.tensors if end not in known])
    return [cell for cell in cells.values() if cell.tensors]


def _last_word(tail: str) -> str:
    """The last part of an end that is not a number; empty, which all names end with, if all are."""
    return next((part for part in reversed(tail.split(".")) if not part.isdigit()), "")


def _placed(
    name: str, written: Mapping[str, str], tails: tuple[str, ...]
) -> tuple[str, str, str] | None:
    """Module, adapter and end of the name of a factor; None for other names."""
    stem = name.removesuffix(".weight")
    above, _, last = stem.rpartition(".")
    for path, adapter in ((stem, ""), (above, last)):
        if path.endswith(tails) and adapter not in NO_ADAPTER:
            tail = max((t for t in tails if path.endswith(t)), key=len)
            if len(path) > len(tail):
                return path.removesuffix(tail), adapter, written[tail]
    return None


def table_for(
    cell: Cell, tables: Sequence[FactorTable], tensors: Collection[str]
) -> FactorTable | None:
    """The first table whose factors a cell has, and that fits what is beside them."""
    for table in tables:
        has_all = all(end in cell.tensors for end in table.needed)
        if (
            has_all
            and table.is_possible(cell.module, tensors)
            and not table.is_ruled_out(cell.module, tensors)
            and (not _is_numbered(table) or _is_narrow(cell, table))
        ):
            return table
    return None


def _is_numbered(table: FactorTable) -> bool:
    """Whether places in a list are all that names the factors: ``g_proj.1`` and ``g_proj.0``."""
    return all(end.rpartition(".")[2].isdigit() for end in (table.left, table.right))


def _is_narrow(cell: Cell, table: FactorTable) -> bool:
    """Whether factors have a side in common that is smaller than both others.

    Two members of any other list are two matrices.
    """
    left, right = (cell.tensors[end].shape for end in (table.left, table.right))
    if len(left) != 2 or len(right) != 2:
        return False
    return left[1] == right[0] < min(left[0], right[1])


def is_strict(ends: Iterable[str]) -> bool:
    """Whether names can only be those of factors, so that half a pair is a fault."""
    return any(mark in end for end in ends for mark in ("lora", "hada_", "lokr_", "vera_"))
