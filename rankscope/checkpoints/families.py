"""From a parameter's name to its coordinates, and from a model's config to its heads.

The one place that takes dotted names apart: everywhere else layer, role and expert are columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rankscope.checkpoints.contents import Heads

# In the order in which tables list them.
ROLES = ("q", "k", "v", "o", "gate", "up", "down", "router", "other", "embed", "unembed")

# Wrappers of training frameworks write their attribute into every name.
WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

ROLE_OF = {
    "q_proj": "q",
    "k_proj": "k",
    "v_proj": "v",
    "o_proj": "o",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "embed_tokens": "embed",
    "lm_head": "unembed",
}
NOT_LINEAR_MAPS = re.compile(r"(^|\.)(\w*norm\w*|inv_freq|rotary_emb|wpe|embed_positions)(\.|$)")
LAYER = re.compile(r"(?:^|\.)(?:layers|blocks|block|layer|h)\.(\d+)(?:\.|$)")
EXPERT = re.compile(r"\.experts\.(\d+)\.")


class Place(NamedTuple):
    """Coordinates of a parameter."""

    layer: int | None
    role: str
    expert: int | None


def plain_name(name: str) -> str:
    """Name of a tensor without the prefixes that wrappers put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "") if wrapper != "module." else name.removeprefix(wrapper)
    return name


def place_of(name: str) -> Place | None:
    """Coordinates of the matrix of this name; None for what is no linear map, such as a norm.

    A name that is not known has the role ``other``: it is analysed, and never dropped.
    """
    module = name.removesuffix(".weight")
    if NOT_LINEAR_MAPS.search(module):
        return None
    layer, expert = LAYER.search(module), EXPERT.search(module)
    return Place(
        layer=None if layer is None else int(layer[1]),
        role=_role(module),
        expert=None if expert is None else int(expert[1]),
    )


def _role(module: str) -> str:
    *parents, leaf = module.split(".")
    if leaf == "gate" and parents and parents[-1] in ("mlp", "block_sparse_moe"):
        return "router"
    return ROLE_OF.get(leaf, "other")


def heads_of(config: Mapping[str, Any]) -> Heads | None:
    """Attention heads as a Hugging Face config states them; None where it does not."""
    config = config.get("text_config", config)
    count, width = config.get("num_attention_heads"), config.get("hidden_size")
    if not isinstance(count, int) or not isinstance(width, int) or count < 1:
        return None
    size = config.get("head_dim") or width // count
    return Heads(count, config.get("num_key_value_heads") or count, size)
