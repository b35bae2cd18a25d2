"""Which tensors of a checkpoint belong together as the factors of one matrix, by their names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rankscope.checkpoints.families.factor_tables import FactorTable, known_tables, with_separator
from rankscope.checkpoints.families.family import families
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor

# Of kinds that are not two factors of one product.
KINDS = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1"),
    *("lokr_t2", "vera_lambda_b", "vera_lambda_d", "lora_mid"),
)
NO_ADAPTER = ("weight", "bias")


@dataclass
class Cell:
    """The factors of one module and one adapter: tensors and their names, by their ends."""

    module: str
    adapter: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """File of the first of its tensors."""
        return next(iter(self.tensors.values())).paths[0]

    def drop(self, ends: Iterable[str]) -> None:
        """Forget the tensors with these ends, of which something was made."""
        for end in ends:
            self.tensors.pop(end, None)
            self.names.pop(end, None)


def tables_of(options: Options) -> tuple[FactorTable, ...]:
    """Every table that is known, the user's own first."""
    own = () if options.family is None else options.family.factors
    theirs = (table for family in families().values() for table in family.factors)
    return (*own, *theirs, *known_tables())


def cells_of(tensors: Mapping[str, Tensor], tables: Sequence[FactorTable]) -> list[Cell]:
    """Tensors that are factors by the ends of their names, those of a module in one cell.

    A name that only looks like that of a factor costs its tensor, if its partner is not there.
    """
    ends = dict.fromkeys((*(end for table in tables for end in table.needed), *KINDS))
    cells: dict[tuple[str, str], Cell] = {}
    written = {with_separator(end): end for end in ends}
    tails = tuple(written)
    for name, tensor in tensors.items():
        found = _placed(name, written, tails)
        if found is not None:
            module, adapter, end = found
            cell = cells.setdefault((module, adapter), Cell(module, adapter))
            cell.tensors[end], cell.names[end] = tensor, name
    return list(cells.values())


def _placed(
    name: str, written: Mapping[str, str], tails: tuple[str, ...]
) -> tuple[str, str, str] | None:
    """Module, adapter and end of the name of a factor; None of other names."""
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
    """The first table of which all is there, and nothing that speaks against it."""
    for table in tables:
        if all(end in cell.tensors for end in table.needed):
            beside = (f"{cell.module}.{end}" for end in table.unless)
            if not any(name in tensors for name in beside):
                return table
    return None


def is_strict(ends: Iterable[str]) -> bool:
    """Whether names are those of factors and of nothing else, so that half a pair is a fault."""
    return any(mark in end for end in ends for mark in ("lora", "hada_", "lokr_", "vera_"))
