"""Values and names that readers of files have stumbled over, or might."""

from __future__ import annotations

from random import Random
from typing import Any


class Raw(str):
    """Text that stands in a document as it is, such as a number that no type can hold."""


HUGE_DIGITS = Raw("9" * 5000)  # more digits than Python turns into a number
DEEP = Raw("[" * 3000 + "]" * 3000)  # deeper than the limit of recursion
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e-300, 1e300, 255, 2**31, 2**32, 2**63 - 1, 2**63, 2**64),
    *(-(2**63), 10**30, 10**400, HUGE_DIGITS, Raw("1e400"), Raw("NaN"), Raw("Infinity")),
    *(Raw("-Infinity"), Raw("1.0"), Raw("1E2"), True, False),
)
NAMES = (
    *("", " ", ".", "..", "/", "a", "weight", ".weight", "weight.weight", "../../x", "/etc/x"),
    *("\0", "\r", "\n", "\t=1+1", "=1+1", "@x", "\x1b[2J", "\u202e", "\ud800", "\udcff", "é" * 300),
    *("x" * 5000, "$\\frac{", "<b>", "%s", "{0}", "(?i)(", "a" * 30 + "!", "0", "1e3", "-1"),
    *("model.layers.0", "model.layers.99999999999999999999.self_attn.q_proj.weight"),
    "model.layers." + "9" * 5000 + ".mlp.up_proj.weight",
    "model.layers.0.mlp.experts.1000000000000000000000.up_proj.weight",
    "model.layers.-1.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "model.layers.0.self_attn.q_proj.base_layer.weight",
    "model.layers.0.self_attn.q_proj.weight_g",
    "model.layers.0.self_attn.q_proj.weight_mask",
    "model.layers.0.self_attn.q_proj.weight_scale_inv",
    "model.layers.0.self_attn.q_proj.parametrizations.weight.original0",
    "model.layers.0.self_attn.qkv_proj.weight",
    "transformer.h.0.attn.c_attn.weight",
    "optimizer.state.0.exp_avg",
    "step_00000000000000000000001",
)
OTHERS: tuple[Any, ...] = (
    *(None, [], {}, [[]], [{}], {"": None}, {"a": {"a": {}}}, [0] * 70, ["F32"], {"a": 1}, DEEP),
    *([-1], [2**63, 2**63], [1, 1, 1], [0, 0], ["a", 1, None], [None], [True, False]),
)


def name(rng: Random) -> str:
    """A name that is odd, or one of a tensor."""
    return rng.choice(NAMES)


def value(rng: Random) -> Any:
    """A value of any type that a JSON document can hold, and some that none should."""
    return rng.choice(rng.choice((NUMBERS, NAMES, OTHERS)))
