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
    """Names that differ in digits alone, by what they have in common, which is as long.

    Examples
    --------
    >>> alike_in_digits(["h.0.w1", "h.1.w1", "head"])
    {'h.0.w0': ['h.0.w1', 'h.1.w1'], 'head': ['head']}
    """
    groups: dict[str, list[str]] = {}
    for common, name in zip(_without_digits(names), names, strict=True):
        groups.setdefault(common, []).append(name)
    return groups


def parts_in(names: Collection[str]) -> set[str]:
    """All parts of these paths, but of those that are plain numbers only some.

    Examples
    --------
    >>> sorted(parts_in(["h.0.w1", "h.1.w2"]) - {"0", "1"})
    ['h', 'w1', 'w2']
    """
    common = _without_digits(names)
    one_of_each = dict(zip(common, names, strict=True))
    apart = {one for one in one_of_each if NUMBERED_WORD.search(one)}
    others = (name for one, name in zip(common, names, strict=True) if one in apart)
    return {
        part
        for some in (one_of_each.values(), others if apart else ())
        for name in some
        for part in name.split(".")
    }


def _without_digits(names: Collection[str]) -> list[str]:
    """Each name with all of its digits alike; taking them from one text is far faster."""
    alike = "\n".join(names).translate(DIGITS).split("\n")
    if len(alike) == len(names):
        return alike
    return [name.translate(DIGITS) for name in names]  # there are none, or one has two lines


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
