"""Attention heads of a model, as its config states them: of each tower its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rankscope.checkpoints.contents import Heads
from rankscope.checkpoints.families.family import Family

# What configs call them; a family's own names come first.
NAMES = {
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_n_heads"),
    "kv_heads": (
        *("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_query_groups"),
        *("attention_n_kv_heads", "n_head_kv"),
    ),
    "head_size": ("head_dim", "head_size", "d_kv", "d_head", "kv_channels"),
    "width": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim"),
}
# What the part of a model is called that a table of its config is on, where the name is another.
TOWERS = {
    "text": ("text", "language", "llm"),
    "vision": ("vision", "visual", "image", "vit"),
    "audio": ("audio", "speech", "sound"),
}
MAIN = "text_config"
STACKS = ("encoder", "decoder")


def heads_of(config: Mapping[str, Any], family: Family) -> Heads | None:
    """Attention heads of a model, of its language model where it has several towers.

    None where the config does not state them. Entries may lie in ``text_config``; a name with a dot
    is an entry of a table.
    """
    nested = config.get(MAIN)
    return _stated(nested if isinstance(nested, Mapping) else config, family)


class Towers:
    """Heads of each tower of a model: those of its own table of the config, and no other's.

    The table is told by the name of the tower: ``vision_config`` is that of ``vision_model``. A
    tower that no name tells has the heads of the language model, unless its shapes are not those
    and just one other table's are. Encoders and decoders of one table may have entries of their
    own. If this errs, the heads do not fit the shapes, which is said where circuits are cut; or
    they fit in width and the circuits of a tower are cut into too many or too few.
    """

    def __init__(self, config: Mapping[str, Any], family: Family) -> None:
        self.main = heads_of(config, family)
        self._config = config
        self._family = family
        self._tables = {
            key: table
            for key, table in config.items()
            if isinstance(table, Mapping) and key != MAIN and _has_heads(table, family)
        }
        self._found: dict[str, Heads | None] = {}

    @classmethod
    def of_one(cls, heads: Heads) -> Towers:
        """Towers of a model that has one, whose heads are known."""
        config = {"n_heads": heads.count, "n_kv_heads": heads.kv_count, "head_size": heads.size}
        return cls(config, Family(""))

    def of(
        self, module: str, block: str = "", shapes: Iterable[tuple[int, ...]] = ()
    ) -> Heads | None:
        """Heads of the tower that a module is in.

        Parameters
        ----------
        block
            Path of the block that it is in, or anything else that its neighbours share.
        shapes
            Shapes of the maps to queries, keys and values in the block, where they are known.
        """
        key = block or module
        if key not in self._found:
            self._found[key] = self._heads(key, tuple(shapes))
        return self._found[key]

    def _heads(self, path: str, shapes: tuple[tuple[int, ...], ...]) -> Heads | None:
        words = re.findall(r"[a-z]+", path.lower())
        named = next((k for w in words for k in self._tables if _is_called(w, k)), None)
        if named is not None:
            table = self._tables[named]
            return self._of_stack(table, words) if _has_one_width(table) else None
        nested = self._config.get(MAIN)
        main = self._of_stack(nested if isinstance(nested, Mapping) else self._config, words)
        if main is None or not shapes or _fits(main, shapes):
            return main
        others = {_stated(table, self._family) for table in self._tables.values()}
        fitting = [heads for heads in others if heads is not None and _fits(heads, shapes)]
        return fitting[0] if len(fitting) == 1 else main

    def _of_stack(self, table: Mapping[str, Any], words: list[str]) -> Heads | None:
        """Heads of one table; those of its encoder or decoder, where it tells them apart."""
        stack = next((word for word in reversed(words) if word in STACKS), "")
        return _stated(table, self._family, stack)


def _is_called(word: str, table: str) -> bool:
    """Whether a part of a path is a name of the tower that this table of the config is on."""
    own = table.removesuffix("_config").removesuffix("_cfg")
    return word in own.split("_") or word in TOWERS.get(own, ())


def _has_heads(table: Mapping[str, Any], family: Family) -> bool:
    """Whether a table of the config is on something that has attention heads."""
    names = (*family.config.get("heads", ()), *NAMES["heads"])
    stacks = (name for stack in STACKS for name in _of_one_stack(names, stack))
    return any(_entry(table, name) is not None for name in (*names, *stacks))


def _has_one_width(table: Mapping[str, Any]) -> bool:
    """Whether a size of heads is stated, or one width alone: some towers state that of another."""
    widths = {table[name] for name in NAMES["width"] if type(table.get(name)) is int}
    return len(widths) < 2 or any(type(table.get(name)) is int for name in NAMES["head_size"])


def _entry(table: Mapping[str, Any], name: str) -> Any:
    """An entry of a table; a name with a dot is an entry of a table in it."""
    value: Any = table
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _fits(heads: Heads, shapes: tuple[tuple[int, ...], ...]) -> bool:
    return all(
        shape[0] in (heads.count * heads.size, heads.kv_count * heads.size) for shape in shapes
    )


def _stated(config: Mapping[str, Any], family: Family, stack: str = "") -> Heads | None:
    """Heads that one table states, for its encoder or decoder if ``stack`` names one."""
    if config.get("kv_lora_rank"):  # latent attention: heads share a factor of keys and values
        return None

    def stated(what: str) -> int | None:
        names = (*family.config.get(what, ()), *NAMES[what])
        for name in (*_of_one_stack(names, stack), *names):
            value = _entry(config, name)
            if type(value) is int and value > 0:
                return value
        return None

    count, width, size = stated("heads"), stated("width"), stated("head_size")
    if size is None and count is not None and width is not None and width % count == 0:
        size = width // count
    if count is None or not size:
        return None
    return Heads(count, _kv_count(config, stated("kv_heads")) or count, size)


def _kv_count(config: Mapping[str, Any], stated: int | None) -> int | None:
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        return 1
    if "num_query_groups" in config:  # Megatron's arguments, which hold 1 where it is not used
        grouped, groups = config.get("group_query_attention"), config["num_query_groups"]
        return groups if grouped and type(groups) is int and groups > 0 else stated
    return stated


def _of_one_stack(names: tuple[str, ...], stack: str) -> Iterable[str]:
    """Names of the entries for an encoder or a decoder alone."""
    if not stack:
        return ()
    return (
        *(f"{stack}_{name}" for name in names),
        *(f"num_{stack}_attention_heads" for name in names if name == "num_attention_heads"),
        *(f"{stack}_attention_heads" for name in names if name == "num_attention_heads"),
    )
