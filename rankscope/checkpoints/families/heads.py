"""Attention heads of a model and of each of its towers, as the config states them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rankscope.checkpoints.contents import Heads, LatentHeads
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.layer_entries import of_layer

# What configs call them; the names of a family come first.
NAMES = {
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_n_heads"),
    "kv_heads": (
        *("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_query_groups"),
        *("attention_n_kv_heads", "n_head_kv"),
    ),
    "head_size": ("head_dim", "head_size", "d_kv", "d_head", "kv_channels"),
    "width": ("hidden_size", "n_embd", "d_model", "dim", "embed_dim"),
}
# Other names of the tower that a table of the config describes.
TOWERS = {
    "text": ("text", "language", "llm"),
    "vision": ("vision", "visual", "image", "vit"),
    "audio": ("audio", "speech", "sound"),
}
MAIN = "text_config"
LONG = 10  # no number of a layer has as many digits
STACKS = ("encoder", "decoder")


def heads_of(config: Mapping[str, Any], family: Family) -> Heads | None:
    """Attention heads of a model, or of its language model if it has several towers.

    None if the config does not state them. Entries may be in ``text_config``; a name with a dot is
    an entry of a table.
    """
    nested = config.get(MAIN)
    return _stated(nested if isinstance(nested, Mapping) else config, family)


class Towers:
    """Heads of each tower of a model, from the table of the config that describes it.

    The name of the tower identifies the table: ``vision_config`` describes ``vision_model``. A
    tower without such a name has the heads of the language model, unless these do not fit its
    shapes and those of exactly one other table do. One table may have different entries for an
    encoder and a decoder, and for single layers. The cost of an error: heads that do not fit the
    shapes, which is said where circuits are cut; or that fit in width, so that a tower has too many
    or too few circuits.
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

    def of(
        self, module: str, block: str = "", shapes: Iterable[tuple[int, ...]] = ()
    ) -> Heads | None:
        """Heads of the tower that a module is in.

        Parameters
        ----------
        block
            Path of the block that it is in, or anything else that its neighbours share.
        shapes
            Shapes of the maps to queries, keys and values in the block, if known.
        """
        key = block or module
        if key not in self._found:
            self._found[key] = self._heads(key, tuple(shapes))
        return self._found[key]

    def model_of(self, module: str) -> tuple[frozenset[str], Mapping[str, Any]]:
        """Model types of the tower that a module is in, and the table that describes it."""
        table = self._named(_words(module))
        tables = (self._config, self._main) if table is None else (table,)
        types = (one.get("model_type") for one in tables)
        return frozenset(kind for kind in types if isinstance(kind, str)), tables[-1]

    @property
    def _main(self) -> Mapping[str, Any]:
        nested = self._config.get(MAIN)
        return nested if isinstance(nested, Mapping) else self._config

    def _named(self, words: list[str]) -> Mapping[str, Any] | None:
        """The table of a tower that a path names."""
        return next((t for w in words for k, t in self._tables.items() if _is_called(w, k)), None)

    def _heads(self, path: str, shapes: tuple[tuple[int, ...], ...]) -> Heads | None:
        words, layer = _words(path), _layer_of(path)
        table = self._named(words)
        if table is not None:
            return self._of_stack(of_layer(table, layer), words) if _has_one_width(table) else None
        main = self._of_stack(of_layer(self._main, layer), words)
        if main is None or not shapes or _fits(main, shapes):
            return main
        others = {_stated(table, self._family) for table in self._tables.values()}
        fitting = [heads for heads in others if heads is not None and _fits(heads, shapes)]
        return fitting[0] if len(fitting) == 1 else main

    def _of_stack(self, table: Mapping[str, Any], words: list[str]) -> Heads | None:
        """Heads of one table, or of its encoder or decoder if it distinguishes them."""
        stack = next((word for word in reversed(words) if word in STACKS), "")
        return _stated(table, self._family, stack)


def _layer_of(block: str) -> int | None:
    """Number of the layer that a block is; None if its path does not end in a number."""
    number = block.rpartition(".")[2]
    return int(number) if number.isdecimal() and len(number) < LONG else None


def _words(path: str) -> list[str]:
    return re.findall(r"[a-z]+", path.lower())


def _is_called(word: str, table: str) -> bool:
    """Whether a part of a path is a name of the tower that a table of the config describes."""
    tower = table.removesuffix("_config").removesuffix("_cfg")
    return word in tower.split("_") or word in TOWERS.get(tower, ())


def _has_heads(table: Mapping[str, Any], family: Family) -> bool:
    """Whether a table of the config describes something with attention heads."""
    names = (*family.config.get("heads", ()), *NAMES["heads"])
    stacks = (name for stack in STACKS for name in _of_one_stack(names, stack))
    return any(_entry(table, name) is not None for name in (*names, *stacks))


def _has_one_width(table: Mapping[str, Any]) -> bool:
    """Whether a table states a size of heads or one width; a second width is another tower's."""
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
    """Heads that one table states, or that it states for the ``stack`` encoder or decoder."""
    if config.get("kv_lora_rank"):
        return _latent(config)

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


def _latent(config: Mapping[str, Any]) -> LatentHeads | None:
    """Heads of latent attention: they share one factor of keys and values."""
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    counts = [config[name] for name in NAMES["heads"] if name in config][:1]
    sizes = [n for n in (*counts, *map(config.get, names)) if type(n) is int and n > 0]
    if len(sizes) <= len(names):
        return None
    count, plain, rotary, value_size = sizes
    return LatentHeads(count, count, plain + rotary, value_size, rotary)


def _kv_count(config: Mapping[str, Any], stated: int | None) -> int | None:
    if config.get("multi_query") is True and not config.get("new_decoder_architecture"):
        return 1
    if "num_query_groups" in config:  # Megatron's arguments, which are 1 if it is not used
        grouped, groups = config.get("group_query_attention"), config["num_query_groups"]
        return groups if grouped and type(groups) is int and groups > 0 else stated
    return stated


def _of_one_stack(names: tuple[str, ...], stack: str) -> Iterable[str]:
    """Names of the entries for only the encoder or the decoder."""
    if not stack:
        return ()
    return (
        *(f"{stack}_{name}" for name in names),
        *(f"num_{stack}_attention_heads" for name in names if name == "num_attention_heads"),
        *(f"{stack}_attention_heads" for name in names if name == "num_attention_heads"),
    )
