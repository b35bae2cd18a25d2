"""Names of parameters: the wrappers in them, and the expert. Layers are told in ``layers.py``.

Nothing but these two takes dotted names apart: elsewhere layer, role and expert are columns.
"""

from __future__ import annotations

import re

# In the order in which a block uses them; tables and figures list them so.
ROLES = (
    *("q", "k", "v", "q_a", "q_b", "kv_a", "kv_b", "o"),
    *("router", "gate", "up", "down", "other", "embed", "unembed"),
)

# Wrappers of training frameworks write their attribute into every name.
OUTER = ("_forward_module.", "module.", "wrapped_model.", "base_model.model.")
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
EXPERT = re.compile(r"\.(?!shared)(?:[^.]*_)?experts\.(\d+)(?=\.|$)")
FIRST_NUMBER = re.compile(r"(?:^|\.)\d+(?=\.|$)")


def plain_name(name: str) -> str:
    """Name of a tensor without what wrappers put into it."""
    for wrapper in INNER:
        name = name.replace(wrapper, "")
    while any(name.startswith(wrapper) for wrapper in OUTER):
        for wrapper in OUTER:
            name = name.removeprefix(wrapper)
    return name


def tower_of(module: str) -> str:
    """Path of a module before the first number in it: ``model.visual.blocks``; empty without."""
    found = FIRST_NUMBER.search(module)
    return "" if found is None else module[: found.start()]


def expert_of(module: str) -> int | None:
    """Index of the expert that a module belongs to."""
    found = EXPERT.search(module)
    return None if found is None else int(found[1])


def block_of(module: str) -> str:
    """Path of a module up to the first number in it: ``model.layers.3``; empty without one."""
    found = FIRST_NUMBER.search(module)
    return "" if found is None else module[: found.end()]
