"""Attention heads of a model, as its config states them."""

from __future__ import annotations

from collections.abc import Mapping
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
    "head_size": ("head_dim", "head_size", "d_kv"),
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
}


def heads_of(config: Mapping[str, Any], family: Family) -> Heads | None:
    """Attention heads; None where the config does not state them.

    Entries may lie in ``text_config``; a name with a dot is an entry of a table.
    """
    nested = config.get("text_config")
    config = nested if isinstance(nested, Mapping) else config
    if config.get("kv_lora_rank"):  # latent attention: heads share a factor of keys and values
        return None

    def stated(what: str) -> int | None:
        for name in (*family.config.get(what, ()), *NAMES[what]):
            value: Any = config
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if type(value) is int and value > 0:
                return value
        return None

    count, width, size = stated("heads"), stated("width"), stated("head_size")
    if size is None and count is not None and width is not None and width % count == 0:
        size = width // count
    if count is None or not size:
        return None
    one_for_all = config.get("multi_query") is True and not config.get("new_decoder_architecture")
    kv_count = 1 if one_for_all else stated("kv_heads") or count
    return Heads(count, kv_count, size)
