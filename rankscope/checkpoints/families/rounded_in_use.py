"""Weights that are stored exactly and rounded in every forward pass, as for a quantised model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rankscope.checkpoints.account import Classed, Rest
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import printable

# Modules beside a weight that round it: of ModelOpt, torch and torchao.
MARK = ".weight_"  # which all of these have
ROUNDING = re.compile(
    r"(?P<module>.*)\.(?P<called>weight_quantizer|weight_fake_quant|weight_fake_quantizer)\..*"
)


def without_rounding(tensors: Mapping[str, Tensor]) -> Rest:
    """The tensors without those of the modules that round weights."""
    weights = {name: weight for name in tensors if (weight := _rounded_by(name, tensors))}
    return Rest(
        {name: tensor for name, tensor in tensors.items() if name not in weights},
        tuple(Classed(tensors[n], "part of", f"what rounds {w}") for n, w in weights.items()),
    )


def rounded_in_use(tensors: Mapping[str, Tensor]) -> Iterator[Skip]:
    """A note on weights that are stored exactly, and that the model rounds before it multiplies."""
    rounded = {weight: name for name in tensors if (weight := _rounded_by(name, tensors))}
    for weight, name in list(rounded.items())[:1]:
        found = ROUNDING.fullmatch(name)
        called = "" if found is None else found["called"]
        message = (
            f"there is a {called} beside {printable(weight, limit=120)}, one of {len(rounded)}: "
            "such a weight is measured as stored, and the model multiplies with scaled or rounded "
            "values of it"
        )
        yield Skip(tensors[weight].paths[0], "", "rounded-in-use", message)


def _rounded_by(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The weight that the module of a tensor rounds; empty for all others."""
    found = ROUNDING.fullmatch(name) if MARK in name else None
    weight = "" if found is None else f"{found['module']}.weight"
    return weight if weight in tensors else ""
