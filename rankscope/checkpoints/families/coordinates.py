"""`Coordinates`: layer, role, expert, block and heads of a module, by its name and neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from rankscope.checkpoints.contents import Heads, Parameter
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.layers import Layers
from rankscope.checkpoints.families.names import block_of, expert_of
from rankscope.checkpoints.families.neighbours import own_part, words
from rankscope.checkpoints.tensors import Tensor

MATRIX, THREE = 2, 3  # numbers of axes
ATTENTION = {"q", "k", "v", "o", "q_b", "kv_b"}  # roles of maps that are beside each other
EMBEDDINGS = {"emb", "embed", "embeds", "embedding", "embeddings"}
OF_TOKENS = {"tok", "token", "tokens", "word", "words", "text", "input", "inputs", "layer", "codec"}
WHOLE_NUMBERS = re.compile(r"\.\d+$")


class Coordinates:
    """Layer, role, expert, block and heads of the modules of a model.

    Parameters
    ----------
    tensors
        All tensors of the model by plain name, since layers follow from all names.
    adapters
        The modules that adapters change.
    towers
        Attention heads of the model's towers; None if unknown.
    first_alike
        For a tensor, the one in a repeated block that has the same role; each its own if the names
        in this table are not those of all tensors and adapters. Heads may differ between blocks of
        the same shapes, since the config may state them for single layers.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        family: Family,
        towers: Towers | None,
        adapters: Iterable[str] = (),
        *,
        first_alike: Mapping[str, str] | None = None,
    ) -> None:
        self._first_alike = {
            name.removesuffix(".weight"): first.removesuffix(".weight")
            for name, first in (first_alike or {}).items()
        }
        self._roles: dict[str, str] = {}
        shapes = {name.removesuffix(".weight"): t.shape for name, t in tensors.items()}
        self._shapes = shapes
        adapters = tuple(adapters)
        held = (module for module, shape in shapes.items() if _is_matrix(shape))
        self._layers = Layers([*held, *adapters])
        self._family = family
        self._towers = towers
        self._projections: dict[str, list[tuple[int, ...]]] = {}
        self._roles_in: dict[str, dict[str, tuple[int, ...]]] = {}
        roles: dict[str, str] = {}
        for module in dict.fromkeys((*shapes, *adapters)):
            shape = shapes.get(module, ())
            if len(shape) < MATRIX and module in shapes:
                continue
            first = self._first_alike.get(module, module)
            if first not in roles:
                roles[first] = family.role_of(first)
            role = roles[first]
            self._roles_in.setdefault(module.rpartition(".")[0], {})[role] = shape
            if len(shape) == MATRIX and role in ("q", "k", "v"):
                self._projections.setdefault(block_of(module), []).append(shape)

    def parameter(self, name: str, tensor: Tensor | None = None) -> Parameter:
        """A parameter of this name with its coordinates, and with its tensor if that is given."""
        module = name.removesuffix(".weight")
        block = self._layers.block(module)
        first = self._first_alike.get(module, module)
        role = self._roles.get(first)
        if role is None:
            role = self._roles[first] = self._role_of(first)
        return Parameter(
            name,
            module,
            self._layers.of_block(block),
            role,
            expert_of(module),
            tensor,
            block=block,
            heads=self._heads_of(module),
        )

    def _role_of(self, module: str) -> str:
        """Role of a module by its name, unless the maps beside it contradict.

        A table for all tokens of the config is an embedding although no family knows it. The gate
        of an attention does not have the role of the gate of an MLP, and what holds gate and up in
        an order that the family does not know is not the up.
        """
        role = self._family.role_of(module)
        if role == "other" and self._is_of_vocabulary(module):
            return "embed"
        beside = self._roles_in.get(module.rpartition(".")[0], {})
        if role == "gate" and "down" not in beside and not ATTENTION.isdisjoint(beside):
            return "other"
        if role == "up" and "gate" not in beside and self._family.fused_in(module) is None:
            up, down = beside.get("up", ()), beside.get("down", ())
            return "other" if up and down and up[-2:-1] == (2 * down[-1],) else role
        return role

    def _is_of_vocabulary(self, module: str) -> bool:
        """Whether a table has a plain name for embeddings, and a row for every token."""
        says = {*words(own_part(f"{WHOLE_NUMBERS.sub('', module)}.weight"))}
        if self._towers is None or not says & EMBEDDINGS or not says <= EMBEDDINGS | OF_TOKENS:
            return False
        rows = self._towers.model_of(module)[1].get("vocab_size")
        return type(rows) is int and self._shapes.get(module, ())[:-1] == (rows,)

    def _heads_of(self, module: str) -> Heads | None:
        """Attention heads of the tower that a module is in; None if unknown."""
        if self._towers is None:
            return None
        block = block_of(module)
        return self._towers.of(module, block, self._projections.get(block, ()))


@lru_cache(maxsize=4096)
def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether at least two axes of a tensor are above 1."""
    return sum(size != 1 for size in shape) >= MATRIX


def heads_of_axes(shape: tuple[int, ...], axes: tuple[str, ...] | None) -> Heads | None:
    """Heads of a tensor that has an axis for them, before that of their size.

    Parameters
    ----------
    axes
        The axes of a tensor that is not cut further.
    """
    if axes is None or len(axes) != THREE or axes.count(axes[0]) != 2:
        return None
    return Heads(shape[0], shape[0], shape[axes.index(axes[0], 1)])
