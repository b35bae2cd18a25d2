"""How Megatron and Meta split each tensor over their slices, by its name.

Megatron's ``mp_rank_NN`` hold the models of Megatron-LM and Megatron-core; names in NeMo have the
same ends. The configuration is in the file (``args``) or beside it (NeMo's ``model_config.yaml``).
Meta's Llama files are ``consolidated.NN.pth`` with ``params.json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.config_files import read_json, read_yaml
from rankscope.checkpoints.files.weights_file import table_of
from rankscope.checkpoints.slicing.joining import MATRIX, Rule, Split
from rankscope.checkpoints.slicing.slice_file import OpenSlice

ROWS, COLUMNS = 0, 1
HEADS_IN_ORDER = 2  # since this version every slice of q, k, v is head by head
LAYER = re.compile(r"(?<![^.])layers\.(\d{1,9})(?=\.)")
NEEDED = ("hidden_size", "num_attention_heads")
LARGEST = 2**40  # of the numbers that configurations state
META_WHOLE = ("router", "gate", "router_DE")  # every process has all of it


def megatron_config(one: OpenSlice) -> Mapping[str, Any]:
    """What the file, or NeMo's file beside it, says of the model; empty if nothing does."""
    beside = (read_yaml(folder / "model_config.yaml") for folder in one.path.parents[:2])
    tables = (table_of(one.entries.get("args")), *beside)
    return next((t for t in tables if all(_count(t, key) for key in NEEDED)), {})


def heads_of_slices(config: Mapping[str, Any], version: Any) -> dict[str, Any]:
    """The configuration with the heads under names that every family knows.

    Without them where the version of the file had q, k and v in another order: then all heads are
    measured as one matrix.
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
    """How a tensor of the model with this configuration was split, by its name.

    Heads and hidden units are distributed: rows of what leads to them, columns of what leads back.
    A gate and an up projection in one are the two halves of every slice.
    """
    width, heads = _count(config, "hidden_size") or 0, _count(config, "num_attention_heads") or 1
    size = _count(config, "kv_channels") or width // heads
    inner, words = _count(config, "ffn_hidden_size"), _count(config, "padded_vocab_size")
    gated = 2 if _is_gated(config) else 1
    queries = Split(ROWS, ((heads + 2 * _groups(config)) * size, width))
    back = Split(COLUMNS, (width, heads * size))
    up = Split(ROWS, (None if inner is None else gated * inner, width), gated)
    down = Split(COLUMNS, (width, inner))
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
        "word_embeddings": Split(ROWS, (words, width)),
        "word_embeddings_for_head": Split(ROWS, (words, width)),
        "output_layer": Split(ROWS, (words, width)),
        "position_embeddings": Split(None, (None, width)),
        "router": Split(None, (None, width)),
    }

    def rule(name: str, shape: tuple[int, ...]) -> Split | None:
        module, _, kind = plain_name(name).rpartition(".")
        if kind != "weight" or len(shape) != MATRIX:
            return None
        parts = module.split(".")
        return known.get(".".join(parts[-2:])) or known.get(parts[-1])

    return rule


def stages_of(
    slices: Sequence[OpenSlice], numbers: Sequence[tuple[int, ...]]
) -> list[list[OpenSlice]]:
    """The slices of each pipeline stage, in order; empty if they do not form a grid.

    The first number is the tensor rank; the second is the stage, where there is one.
    """
    stages: dict[int, list[OpenSlice]] = {}
    for one, (_, *rest) in zip(slices, numbers, strict=True):
        if len(rest) > 1:
            return []  # experts are distributed too
        stages.setdefault(rest[0] if rest else 0, []).append(one)
    ordered = [stages[stage] for stage in sorted(stages)]
    is_grid = sorted(stages) == list(range(len(stages))) and len(set(map(len, ordered))) == 1
    return ordered if is_grid else []


def layers_renamed(offset: int) -> Callable[[str], str]:
    """Give a layer of a stage the number that it has in the model."""

    def renamed(name: str) -> str:
        return LAYER.sub(lambda match: f"layers.{int(match[1]) + offset}", name, count=1)

    return renamed


def layers_in(names: Sequence[str]) -> int:
    """Number of layers that these tensors are in; -1 where their numbers do not begin at 0."""
    layers = {int(match[1]) for match in map(LAYER.search, names) if match}
    return len(layers) if layers == set(range(len(layers))) else -1


def params_beside(folder: Path) -> Mapping[str, Any]:
    """What Meta's ``params.json`` says of the model; empty if it is absent or of another kind."""
    params = read_json(folder / "params.json")
    model = params.get("model", params)
    model = model if isinstance(model, dict) else {}
    return model if _count(model, "dim") and _count(model, "n_heads") else {}


def meta_rule(params: Mapping[str, Any]) -> Rule:
    """How a tensor of the model with these parameters was split, by its name.

    Heads and hidden units are distributed: rows of wq, wk, wv, w1 and w3, columns of wo and w2.
    Llama 1 and 2 split the embeddings by columns and Llama 3 by rows, which the width of a slice
    shows.
    """
    dim, heads = _count(params, "dim") or 0, _count(params, "n_heads") or 1
    size = _count(params, "head_dim") or dim // heads
    keys = (_count(params, "n_kv_heads") or heads) * size
    words, hidden = _count(params, "vocab_size"), _hidden(params)
    known = {
        "wq": Split(ROWS, (heads * size, dim)),
        "wk": Split(ROWS, (keys, dim)),
        "wv": Split(ROWS, (keys, dim)),
        "wo": Split(COLUMNS, (dim, heads * size)),
        "w1": Split(ROWS, (hidden, dim)),
        "w2": Split(COLUMNS, (dim, hidden)),
        "w3": Split(ROWS, (hidden, dim)),
        "output": Split(ROWS, (words, dim)),
    }

    def rule(name: str, shape: tuple[int, ...]) -> Split | None:
        *_, module, kind = ("", *plain_name(name).split("."))
        if kind != "weight" or len(shape) != MATRIX:
            return None
        if module == "tok_embeddings":
            return Split(ROWS if shape[1] == dim else COLUMNS, (words, dim))
        return Split(None, (None, dim)) if module in META_WHOLE else known.get(module)

    return rule


def _hidden(params: Mapping[str, Any]) -> int | None:
    """Units of the feed-forward layers, by Meta's formula; None where a number is missing."""
    stated, multiple = _count(params, "hidden_dim"), _count(params, "multiple_of")
    if stated or not multiple:
        return stated
    hidden = 8 * (_count(params, "dim") or 0) // 3
    factor = params.get("ffn_dim_multiplier")
    if isinstance(factor, int | float) and 0 < factor < LARGEST:
        hidden = int(factor * hidden)
    return -(-hidden // multiple) * multiple


def _groups(config: Mapping[str, Any]) -> int:
    """Number of heads with keys and values of their own."""
    heads, groups = _count(config, "num_attention_heads") or 1, _count(config, "num_query_groups")
    # Megatron stores a default number of groups, which counts only where groups are switched on.
    return heads if groups is None or config.get("group_query_attention") is False else groups


def _is_gated(config: Mapping[str, Any]) -> bool:
    activation = config.get("activation")
    stated = (config.get(key) is True for key in ("swiglu", "geglu", "reglu", "gated_linear_unit"))
    return any(stated) or (isinstance(activation, str) and activation.lower().endswith("glu"))


def _count(config: Mapping[str, Any], key: str) -> int | None:
    """A plausible number; None for others, such as -1 for a vocabulary that is not known."""
    value = config.get(key)
    return value if type(value) is int and 0 < value < LARGEST else None
