"""Quantised weights: told by their companions, and refused with the name of the scheme.

The tensors beside a quantised weight (its scales, zero points, tables) are matrices too, some of
them of floating-point numbers. They are no weights, and must not be taken for any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import printable

MATRIX = 2  # axes
ADVICE = "give it dequantised"


@dataclass(frozen=True)
class Scheme:
    """A way to quantise, and how its tensors are called.

    Attributes
    ----------
    weight
        End of the name of the tensor that holds the weight.
    sign
        What stands there instead in the name of the companion that gives it away.
    method
        What ``quant_method`` in the config calls it.
    """

    name: str
    weight: str
    sign: str
    method: str


# The first that fits is taken: AWQ has all that GPTQ has but g_idx.
SCHEMES = (
    Scheme("bitsandbytes (4 bits)", "", ".absmax", "bitsandbytes"),
    Scheme("bitsandbytes (8 bits)", ".weight", ".SCB", "bitsandbytes"),
    Scheme("GPTQ", ".qweight", ".g_idx", "gptq"),
    Scheme("AWQ", ".qweight", ".qzeros", "awq"),
    Scheme("compressed-tensors", ".weight_packed", ".weight_scale", "compressed-tensors"),
    Scheme("MXFP4", "_blocks", "_scales", "mxfp4"),
    Scheme("FP8 in blocks", "", "_scale_inv", "fp8"),
    Scheme("HQQ", ".W_q", ".scale", "hqq"),
    Scheme("AQLM", ".codes", ".codebooks", "aqlm"),
    Scheme("quanto", "._data", "._scale", "quanto"),
    Scheme("torchao", "_qdata", "_scale", "torchao"),
)
NAMES = {scheme.method: scheme.name for scheme in SCHEMES} | {
    "bitsandbytes": "bitsandbytes",
    "fp8": "FP8",
}
# What many schemes put behind the name of a weight, so that it tells that there is one, not which.
SCALES = ("_scale", "_scales")
# A weight that is called so has a module of its own; in a stack of experts other weights lie by it.
WEIGHTS = ("weight", "_weight", "qweight", "dqweight")


@dataclass
class _Quantised:
    """The quantised weights of a checkpoint, and where their companions are."""

    schemes: dict[str, str] = field(default_factory=dict)  # name of the tensor → of the scheme
    modules: set[str] = field(default_factory=set)  # all that they hold belongs to the weight
    stems: set[str] = field(default_factory=set)  # names that those of companions begin with

    def add(self, name: str, scheme: str, *, end: str) -> None:
        """Take note of a weight, whose name has this end in its scheme."""
        self.schemes[name] = scheme
        stem = name.removesuffix(end)
        module, _, leaf = stem.rpartition(".")
        if leaf in WEIGHTS:
            self.modules.add(module)
        elif end.startswith("."):
            self.modules.add(stem)
            stem = f"{stem}.weight"
        self.stems.add(stem)

    def has_companion(self, name: str) -> bool:
        """Whether a tensor is there for the sake of a quantised one; a bias is not."""
        if not self.schemes:
            return False
        module, _, leaf = name.rpartition(".")
        if name in self.schemes or leaf == "bias" or leaf.endswith("_bias"):
            return False
        ends = (i for i, letter in enumerate(name) if letter in "._")
        return module in self.modules or any(name[:i] in self.stems for i in ends)


def without_quantised(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[Skip]]:
    """The plain tensors, and a skip for every weight that is stored quantised.

    Nothing is read: names, formats and the config's ``quantization_config`` tell. The config knows
    best what the scheme is called, and the names which weights it was used on.

    Parameters
    ----------
    tensors
        By plain name.
    """
    method = _method(config)
    found = _Quantised()
    for name, tensor in tensors.items():
        told = _told_by_companions(name, tensor, tensors, method)
        if told is not None:
            found.add(name, told[0], end=told[1])
    rest = [name for name in tensors if name not in found.schemes and not found.has_companion(name)]
    for name in rest:
        scheme = _told_by_format(name, tensors[name], method)
        if scheme:
            found.add(name, scheme, end="")
    skips = [
        Skip(tensors[name].paths[0], name, "quantised", f"is quantised by {scheme}: {ADVICE}")
        for name, scheme in found.schemes.items()
    ]
    plain = (n for n in rest if n not in found.schemes and not found.has_companion(n))
    return {name: tensors[name] for name in plain}, skips


def _method(config: Mapping[str, Any]) -> str:
    """What the config says about how the model was quantised; empty if nothing."""
    inner = config.get("text_config")
    for table in (config, inner if isinstance(inner, Mapping) else {}):
        for entry in ("quantization_config", "compression_config"):
            stated = table.get(entry)
            method = stated.get("quant_method") if isinstance(stated, Mapping) else None
            if isinstance(method, str) and method:
                return method
    return ""


def _told_by_companions(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], method: str
) -> tuple[str, str] | None:
    """Name of the scheme and end of the weight's name; None if nothing beside it tells."""
    for scheme in SCHEMES:
        is_weight = name.endswith(scheme.weight)
        if is_weight and f"{name.removesuffix(scheme.weight)}{scheme.sign}" in tensors:
            agrees = method in ("", scheme.method)
            return scheme.name if agrees else _called(method), scheme.weight
    # A plain weight may have a learnt scale; the config says where there is more to it.
    if tensor.dtype in FLOATS and not method:
        return None
    if any(f"{name}{end}" in tensors for end in SCALES):
        return _called(method) or f"scaled {_short(tensor.dtype)}", ""
    return None


def _told_by_format(name: str, tensor: Tensor, method: str) -> str:
    """Name of the scheme of a weight that stands alone; empty if it is plain."""
    if tensor.dtype in FLOATS or len(tensor.shape) < MATRIX or name.endswith("bias"):
        return ""
    return _called(method) or ("FP8" if tensor.dtype.startswith("float8") else "")


def _called(method: str) -> str:
    return NAMES.get(method, printable(method, limit=40))


def _short(dtype: str) -> str:
    return "FP8" if dtype.startswith("float8") else dtype
