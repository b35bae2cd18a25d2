"""Megatron's ``mp_rank_NN``: how each tensor was cut, and which layers a stage has.

The names are those of Megatron-LM's models and of Megatron-core's; NeMo's have the same ends. The
configuration is in the file (``args``), or beside it (NeMo's ``model_config.yaml``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.slice_file import OpenSlice
from rankscope.checkpoints.files.yaml_file import read_yaml
from rankscope.checkpoints.joining import Cut, Rule
from rankscope.checkpoints.layouts.torch_tables import table_of

ROWS, COLUMNS = 0, 1
HEADS_IN_ORDER = 2  # the version since which every slice of q, k, v is head by head
LAYER = re.compile(r"(?<![^.])layers\.(\d+)(?=\.)")
NEEDED = ("hidden_size", "num_attention_heads")


def megatron_config(one: OpenSlice) -> Mapping[str, Any]:
    """What the file, or the one that NeMo puts beside, says of the model; empty if nothing."""
    folders = one.path.parents[:2]
    tables = (table_of(one.entries.get("args")), *map(_nemo_config, folders))
    return next((t for t in tables if all(_count(t, key) for key in NEEDED)), {})


def _nemo_config(folder: Path) -> Mapping[str, Any]:
    return read_yaml(folder / "model_config.yaml")


def heads_of_slices(config: Mapping[str, Any], version: Any) -> dict[str, Any]:
    """The configuration with the heads under names that every family knows.

    Without them where the file is of a version that had q, k and v in another order: they are
    then measured in one.
    """
    heads, width = _count(config, "num_attention_heads") or 1, _count(config, "hidden_size") or 0
    made = dict(config) | {
        "num_query_groups": _groups(config),
        "num_key_value_heads": _groups(config),
        "head_dim": _count(config, "kv_channels") or width // heads,
    }
    if isinstance(version, int | float) and version < HEADS_IN_ORDER:
        del made["num_attention_heads"]
    return made


def megatron_rule(config: Mapping[str, Any]) -> Rule:
    """How a tensor of the model with this configuration was cut, by its name.

    Heads and hidden units were shared out: rows of what leads to them, columns of what leads back.
    A gate and an up projection in one are halves of every slice.
    """
    width, heads = _count(config, "hidden_size") or 0, _count(config, "num_attention_heads") or 1
    size = _count(config, "kv_channels") or width // heads
    inner, words = _count(config, "ffn_hidden_size"), _count(config, "padded_vocab_size")
    gated = 2 if _is_gated(config) else 1
    queries = Cut(ROWS, ((heads + 2 * _groups(config)) * size, width))
    back = Cut(COLUMNS, (width, heads * size))
    up = Cut(ROWS, (None if inner is None else gated * inner, width), gated)
    down = Cut(COLUMNS, (width, inner))
    known = {
        "query_key_value": queries,
        "linear_qkv": queries,
        "self_attention.dense": back,
        "attention.dense": back,
        "linear_proj": back,
        "dense_h_to_4h": up,
        "linear_fc1": up,
        "dense_4h_to_h": down,
        "linear_fc2": down,
        "word_embeddings": Cut(ROWS, (words, width)),
        "word_embeddings_for_head": Cut(ROWS, (words, width)),
        "output_layer": Cut(ROWS, (words, width)),
        "position_embeddings": Cut(None, (None, width)),
        "router": Cut(None, (None, width)),
    }

    def rule(name: str, shape: tuple[int, ...]) -> Cut | None:
        module, _, kind = plain_name(name).rpartition(".")
        if kind != "weight" or len(shape) != len(("rows", "columns")):
            return None
        parts = module.split(".")
        return known.get(".".join(parts[-2:])) or known.get(parts[-1])

    return rule


def stages_of(
    slices: Sequence[OpenSlice], numbers: Sequence[tuple[int, ...]]
) -> list[list[OpenSlice]]:
    """The slices of each stage of the pipeline, in order; empty if they make no grid.

    The first number is the tensors' rank, the second the stage, where there is one.
    """
    stages: dict[int, list[OpenSlice]] = {}
    for one, (_, *rest) in zip(slices, numbers, strict=True):
        if len(rest) > 1:
            return []  # experts, too, are shared out
        stages.setdefault(rest[0] if rest else 0, []).append(one)
    ordered = [stages[stage] for stage in sorted(stages)]
    is_grid = sorted(stages) == list(range(len(stages))) and len(set(map(len, ordered))) == 1
    return ordered if is_grid else []


def layers_renamed(offset: int) -> Callable[[str], str]:
    """Give a layer of a stage the number that it has in the model."""

    def renamed(name: str) -> str:
        return LAYER.sub(lambda found: f"layers.{int(found[1]) + offset}", name, count=1)

    return renamed


def layers_in(names: Sequence[str]) -> int:
    """How many layers these tensors are of; -1 where their numbers do not begin at 0."""
    found = {int(match[1]) for match in map(LAYER.search, names) if match}
    return len(found) if found == set(range(len(found))) else -1


def _groups(config: Mapping[str, Any]) -> int:
    """Heads that have keys and values of their own."""
    heads, groups = _count(config, "num_attention_heads") or 1, _count(config, "num_query_groups")
    # Megatron keeps a default number of groups that counts only where they are asked for.
    return heads if groups is None or config.get("group_query_attention") is False else groups


def _is_gated(config: Mapping[str, Any]) -> bool:
    activation = config.get("activation")
    stated = (config.get(key) is True for key in ("swiglu", "geglu", "reglu", "gated_linear_unit"))
    return any(stated) or (isinstance(activation, str) and activation.lower().endswith("glu"))


def _count(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    return value if type(value) is int and value > 0 else None
