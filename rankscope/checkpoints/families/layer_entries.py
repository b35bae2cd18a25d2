"""What a config states for single layers, or for all layers of one kind, instead of for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OVERRIDES = "per_layer_config"
LISTS = "_per_layer"
KINDS = "layer_types"
# Entries for the layers of a kind, by the names of those for all layers.
SLIDING = {
    name: f"swa_{name}" for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
}
FULL = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
OF_KIND = {"sliding_attention": SLIDING, "hybrid_sliding": SLIDING, "full_attention": FULL}


def of_layer(table: Mapping[str, Any], layer: int | None) -> Mapping[str, Any]:
    """The table of a config with what it states for one layer in place of what it states for all.

    transformers writes ``per_layer_config``, with the entries of single layers by number, or lists
    such as ``num_attention_heads_per_layer``. Gemma 4 has ``global_head_dim`` for its layers of
    full attention, Inkling ``swa_head_dim`` for its others; ``layer_types`` says which those are.

    Parameters
    ----------
    layer
        Number of the layer in its stack; None if unknown.

    Examples
    --------
    >>> table = {"head_dim": 64, "per_layer_config": {"05": {"head_dim": 128}}}
    >>> of_layer(table, 5)["head_dim"], of_layer(table, 4)["head_dim"]
    (128, 64)
    """
    if layer is None:
        return table
    kind = _entry(table.get(KINDS), layer)
    names = OF_KIND.get(kind, {}) if isinstance(kind, str) else {}
    own = {name: table[other] for name, other in names.items() if type(table.get(other)) is int}
    if names is FULL and table.get("attention_k_eq_v") is False:
        own.pop("num_key_value_heads", None)  # then Gemma 4 does not use it
    for name, value in table.items():
        if name.endswith(LISTS) and type(number := _entry(value, layer)) is int:
            own[name.removesuffix(LISTS)] = number
    overrides = table.get(OVERRIDES)
    if isinstance(overrides, Mapping):
        found = (one for key, one in overrides.items() if (key.lstrip("0") or "0") == str(layer))
        own |= next((one for one in found if isinstance(one, Mapping)), {})
    return {**table, **own} if own else table


def _entry(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None
