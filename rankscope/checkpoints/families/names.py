"""Names of parameters: the wrappers in them, and layer and expert.

The one place that takes dotted names apart: everywhere else layer, role and expert are columns.
"""

from __future__ import annotations

import re

# In the order in which tables list them.
ROLES = (
    *("q", "k", "v", "o", "q_a", "q_b", "kv_a", "kv_b"),
    *("gate", "up", "down", "router", "other", "embed", "unembed"),
)

# Wrappers of training frameworks write their attribute into every name.
OUTER = ("_forward_module.", "module.", "wrapped_model.", "base_model.model.")
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)(?=\.|$)")
EXPERT = re.compile(r"\.experts\.(\d+)(?=\.|$)")


def plain_name(name: str) -> str:
    """Name of a tensor without what wrappers put into it."""
    for wrapper in INNER:
        name = name.replace(wrapper, "")
    while any(name.startswith(wrapper) for wrapper in OUTER):
        for wrapper in OUTER:
            name = name.removeprefix(wrapper)
    return name


def layer_of(module: str) -> int | None:
    """Index of the layer that a module is in."""
    found = LAYER.search(module)
    return None if found is None else int(found[1])


def expert_of(module: str) -> int | None:
    """Index of the expert that a module belongs to."""
    found = EXPERT.search(module)
    return None if found is None else int(found[1])


def block_of(module: str) -> str:
    """Path of the layer that a module is in: ``model.layers.3``; empty outside of layers."""
    found = LAYER.search(module)
    return "" if found is None else module[: found.end()]
