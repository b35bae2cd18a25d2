"""Maps in groups whose number the config states: which, and the matrix of each group."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from rankscope.checkpoints.families.axes import NumberedMatrix
from rankscope.checkpoints.families.family import ends_with
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import Tensor


@dataclass(frozen=True)
class GroupTable:
    """Which modules have a certain number of groups.

    Attributes
    ----------
    modules
        Ends of module paths.
    entry
        The entry of the config that states the number.
    number
        The number, if no entry states it but the code of these models does.
    model_types
        Values of ``model_type`` in the config; empty for all models with the entry.
    """

    modules: tuple[str, ...]
    entry: str = ""
    number: int = 0
    model_types: tuple[str, ...] = ()

    def groups_of(self, module: str, towers: Towers) -> int:
        """How many groups a module has; 0 if this table does not say."""
        if not any(ends_with(module, end) for end in self.modules):
            return 0
        model_types, config = towers.model_of(module)
        if self.model_types and model_types.isdisjoint(self.model_types):
            return 0
        stated = config.get(self.entry, self.number)
        return stated if type(stated) is int and stated > 0 else 0


def groups_of(module: str, towers: Towers | None) -> int:
    """Into how many groups the outputs of a module are divided; 0 if nothing states it."""
    if towers is None:
        return 0
    tables = _tables().get(module.rpartition(".")[2], ())
    found = (table.groups_of(module, towers) for table in tables)
    return next((number for number in found if number), 0)


def matrices_of_groups(tensor: Tensor, groups: int) -> Iterator[NumberedMatrix]:
    """The matrix of each group of a tensor whose first axis holds the outputs of all groups.

    They are numbered as experts are, since each has inputs and outputs of its own.
    """
    rows, columns = tensor.shape[0] // groups, math.prod(tensor.shape[1:])
    for group in range(groups):
        region = Region(group * rows * columns, ((rows, columns),), (columns, 1))
        yield NumberedMatrix(Part(tensor, region), {"expert": group})


@cache
def _tables() -> Mapping[str, list[GroupTable]]:
    """The tables by the last parts of their modules, which few modules of a model share."""
    text = (resources.files("rankscope.checkpoints.families") / "groups.toml").read_text("utf-8")
    found: dict[str, list[GroupTable]] = {}
    for entry in tomllib.loads(text)["groups"]:
        table = GroupTable(
            tuple(entry["modules"]),
            entry=entry.get("entry", ""),
            number=entry.get("number", 0),
            model_types=tuple(entry.get("model_types", ())),
        )
        for last in {end.rpartition(".")[2] for end in table.modules}:
            found.setdefault(last, []).append(table)
    return found
