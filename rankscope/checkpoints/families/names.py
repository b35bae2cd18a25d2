"""Names of parameters: the wrappers, the expert and the tower in them; and the roles.

Only this file and ``layers.py`` take dotted names apart: elsewhere layer, role and expert are
columns.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, get_args

Role = Literal[
    "q", "k", "v", "q_a", "q_b", "kv_a", "kv_b", "o",
    "router", "gate", "up", "down", "other", "embed", "unembed",
]  # fmt: skip
# In the order in which a block uses them; tables and figures list them so.
ROLES: tuple[Role, ...] = get_args(Role)

# Attributes of the wrappers of training frameworks, which are in every name.
OUTER = ("_forward_module.", "module.", "wrapped_model.", "base_model.model.")
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
MARK = "_mod"  # which all of these have
EXPERT = re.compile(r"\.(?!shared)(?:[^.]*_)?experts\.(\d{1,9})(?=\.|$)")
# Attention to an encoder or another input, whose maps do not belong to those of self-attention.
CROSSING = re.compile(
    r"(^|[._])(cross_?att|enc(oder)?_?dec(oder)?_?att|encoder_att)", re.IGNORECASE
)
DIGITS = dict.fromkeys(map(ord, "123456789"), "0")
NUMBERED_WORD = re.compile(r"[^.0]0|0[^.0]")
FIRST_NUMBER = re.compile(r"(?:^|\.)\d+(?=\.|$)")


def plain_name(name: str) -> str:
    """Name of a tensor without the parts that wrappers add."""
    if MARK in name:
        for wrapper in INNER:
            name = name.replace(wrapper, "")
    while name.startswith(OUTER):
        for wrapper in OUTER:
            name = name.removeprefix(wrapper)
    return name


def alike_in_digits(names: Collection[str]) -> dict[str, list[str]]:
    """Names that differ in digits alone, by what they have in common.

    >>> alike_in_digits(["h.0.w1", "h.1.w1", "head"])
    {'h.0.w0': ['h.0.w1', 'h.1.w1'], 'head': ['head']}
    """
    alike = "\n".join(names).translate(DIGITS).split("\n")
    if len(alike) != len(names):  # a name has two lines
        alike = [name.translate(DIGITS) for name in names]
    groups: dict[str, list[str]] = {}
    for common, name in zip(alike, names, strict=True):
        groups.setdefault(common, []).append(name)
    return groups


def parts_in(names: Collection[str]) -> set[str]:
    """All parts of these paths, but of those that are plain numbers only some.

    >>> sorted(parts_in(["h.0.w1", "h.1.w2"]) - {"0", "1"})
    ['h', 'w1', 'w2']
    """
    groups = alike_in_digits(names)
    some = (
        name
        for common, group in groups.items()
        for name in (group if NUMBERED_WORD.search(common) else group[:1])
    )
    return {part for name in some for part in name.split(".")}


def tower_of(module: str) -> str:
    """Path of a module before its first number: ``model.visual.blocks``; empty without a number."""
    found = FIRST_NUMBER.search(module)
    return "" if found is None else module[: found.start()]


def expert_of(module: str) -> int | None:
    """Index of the expert that a module belongs to; None if it belongs to none."""
    found = EXPERT.search(module)
    return None if found is None else int(found[1])


def block_of(module: str) -> str:
    """Path of a module up to its first number: ``model.layers.3``; empty without a number."""
    found = FIRST_NUMBER.search(module)
    return "" if found is None else module[: found.end()]
