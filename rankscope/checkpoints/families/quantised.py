"""Quantised weights: recognised by the tensors beside them, and skipped with the scheme's name.

The companions of a quantised weight (scales, zero points, tables) are matrices too, some of
floating-point numbers, and must not be taken for weights. A quantised weight shows in whole numbers
that are packed into a matrix, and in the shapes beside it; names only say what the scheme is
called. The cost of an error: a plain weight in the same module is missing, which the account shows
as part of the quantised one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankscope.checkpoints.account import Classed, Rest
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.neighbours import Neighbours
from rankscope.checkpoints.families.no_maps import is_mask
from rankscope.checkpoints.limits import MAX_COMPARED, over_limit
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import printable

MATRIX = 2  # axes
ADVICE = "give it dequantised"


@dataclass(frozen=True)
class Scheme:
    """A way to quantise, and the names of its tensors.

    Attributes
    ----------
    weight
        End of the name of the tensor that holds the weight.
    sign
        End of the name of the companion that identifies it, in place of ``weight``.
    method
        Its ``quant_method`` in the config.
    """

    name: str
    weight: str
    sign: str
    method: str


# The first that fits is taken: AWQ has all tensors of GPTQ except g_idx.
FOUR_BITS = Scheme("bitsandbytes (4 bits)", "", ".absmax", "bitsandbytes")
SCHEMES = (
    FOUR_BITS,
    Scheme("bitsandbytes (8 bits)", ".weight", ".SCB", "bitsandbytes"),
    Scheme("GPTQ", ".qweight", ".g_idx", "gptq"),
    Scheme("SVDQuant", ".qweight", ".wscales", "svdquant"),
    Scheme("AWQ", ".qweight", ".qzeros", "awq"),
    Scheme("compressed-tensors", ".weight_packed", ".weight_scale", "compressed-tensors"),
    Scheme("NVFP4", ".weight", ".weight_scale_2", "nvfp4"),
    Scheme("MXFP4", "_blocks", "_scales", "mxfp4"),
    Scheme("FP8 in blocks", "", "_scale_inv", "fp8"),
    Scheme("scaled FP8", ".weight", ".scale_weight", "comfy"),
    Scheme("HQQ", ".W_q", ".scale", "hqq"),
    Scheme("AQLM", ".codes", ".codebooks", "aqlm"),
    Scheme("quanto (4 bits)", "._data._data", "._scale", "quanto"),
    Scheme("quanto", "._data", "._scale", "quanto"),
    Scheme("torchao", "_qdata", "_scale", "torchao"),
    Scheme("EXL2", ".q_weight", ".q_scale", "exl2"),
    Scheme("QuIP#", ".Qidxs", ".SU", "quip"),
    Scheme("VPTQ", ".indices", ".centroids.weight", "vptq"),
    Scheme("Marlin", ".B", ".s", "marlin"),
)
NAMES = {scheme.method: scheme.name for scheme in SCHEMES} | {
    "bitsandbytes": "bitsandbytes",
    "quanto": "quanto",
    "fp8": "FP8",
}
# Many schemes have scales of this name, so it shows only that there is one.
SCALES = ("scale", "scales")
# A weight of this name is alone in its module; a stack of experts has others beside it.
WEIGHTS = ("weight", "_weight", "qweight", "dqweight")
PACKED = (1, 2, 4, 8)  # weights in one number


@dataclass
class _Quantised:
    """The quantised weights of a checkpoint, and their companions."""

    schemes: dict[str, str] = field(default_factory=dict)  # name of the tensor → of the scheme
    modules: dict[str, str] = field(default_factory=dict)  # module → its only weight
    stems: dict[str, str] = field(default_factory=dict)  # start of companions' names → weight
    companions: dict[str, str] = field(default_factory=dict)  # name of a companion → its weight
    compared: int = 0  # tensors with those beside them

    def count(self, compared: int) -> None:
        """Count what is compared to find the scales of a weight."""
        self.compared += compared
        if self.compared > MAX_COMPARED:
            raise over_limit(
                f"has so many tensors in one module that more than {MAX_COMPARED} might be scales"
            )

    def add(self, name: str, scheme: str, *, end: str) -> None:
        """Record a weight whose name has this end in its scheme."""
        self.schemes[name] = scheme
        stem = name.removesuffix(end)
        module, _, leaf = stem.rpartition(".")
        if leaf in WEIGHTS:
            self.modules.setdefault(module, name)
        elif end.startswith("."):
            self.modules.setdefault(stem, name)
            stem = f"{stem}.weight"
        self.stems.setdefault(stem, name)

    def weight_of(self, name: str) -> str:
        """The quantised weight that a tensor belongs to; empty for other tensors and for biases."""
        if not self.schemes or name in self.schemes or _is_bias(name):
            return ""
        if name in self.companions:
            return self.companions[name]
        module = name.rpartition(".")[0]
        above, _, inner = module.rpartition(".")
        for path in (module, above if "lora" not in inner else ""):
            if path in self.modules:
                return self.modules[path]
        ends = (i for i, letter in enumerate(name) if letter in "._")
        return next((self.stems[name[:i]] for i in ends if name[:i] in self.stems), "")


def without_quantised(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Rest:
    """The plain tensors, and a skip for every weight that is stored quantised.

    Nothing is read: names, formats, shapes and the config decide. The config has the name of the
    scheme; the names of the tensors show which weights it was used on.

    Parameters
    ----------
    tensors
        By plain name.
    """
    method, quantised = _method(config), _Quantised()
    if not method and all(map(_is_plain, tensors.items())):
        return Rest({**tensors})
    for name, tensor in tensors.items():
        scheme_and_end = _by_companions(name, tensor, tensors, method)
        if scheme_and_end is not None:
            scheme, end = scheme_and_end
            quantised.add(name, _with_bits(scheme, name, config), end=end)
    near = Neighbours(tensors)
    whole = [(name, tensor) for name, tensor in tensors.items() if tensor.dtype not in FLOATS]
    for name, tensor in sorted(whole, key=lambda one: -math.prod(one[1].shape)):
        if name not in quantised.schemes and not quantised.weight_of(name):
            _add_packed(quantised, name, tensor, near)
    for name, tensor in tensors.items():
        scheme = _by_format(name, tensor, method)
        if scheme and name not in quantised.schemes and not quantised.weight_of(name):
            quantised.add(name, scheme, end="")
    plain, classed = {}, []
    for name, tensor in tensors.items():
        if name in quantised.schemes:
            message = f"is quantised by {quantised.schemes[name]}: {ADVICE}"
            classed.append(Classed(tensor, "not understood", message))
        elif weight := quantised.weight_of(name):
            classed.append(Classed(tensor, "part of", f"the quantised {weight}"))
        else:
            plain[name] = tensor
    skips = (
        Skip(tensors[name].paths[0], name, "quantised", f"is quantised by {scheme}: {ADVICE}")
        for name, scheme in quantised.schemes.items()
    )
    return Rest(plain, tuple(classed), tuple(skips))


def _is_plain(named: tuple[str, Tensor]) -> bool:
    """Whether a tensor alone shows nothing of a scheme: plain numbers need one of these beside."""
    name, tensor = named
    return tensor.dtype in FLOATS and not name.endswith(FOUR_BITS.sign)


def _method(config: Mapping[str, Any]) -> str:
    """The method of quantisation in the config; empty if it states none."""
    inner = config.get("text_config")
    for table in (config, inner if isinstance(inner, Mapping) else {}):
        for entry in ("quantization_config", "compression_config"):
            stated = table.get(entry)
            method = stated.get("quant_method") if isinstance(stated, Mapping) else None
            if isinstance(method, str) and method:
                return method
    return ""


def _by_companions(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], method: str
) -> tuple[str, str] | None:
    """Name of the scheme and end of the weight's name; None if nothing beside it shows one."""
    for scheme in (FOUR_BITS,) if tensor.dtype in FLOATS else SCHEMES:
        if not name.endswith(scheme.weight):
            continue
        if f"{name.removesuffix(scheme.weight)}{scheme.sign}" in tensors:
            agrees = method in ("", scheme.method)
            return scheme.name if agrees else _called(method), scheme.weight
    # A plain weight may have a learnt scale; the config says if it is more than that.
    if tensor.dtype in FLOATS and not method:
        return None
    module = name.removesuffix("weight") if name.endswith(".weight") else f"{name}_"
    if any(f"{start}{end}" in tensors for end in SCALES for start in (f"{name}_", module)):
        known = "MLX" if tensor.dtype == "uint32" else f"scaled {_short(tensor.dtype)}"
        return _called(method) or known, ""
    return None


def _add_packed(quantised: _Quantised, name: str, tensor: Tensor, near: Neighbours) -> None:
    """Record a tensor of whole numbers if they are packed into a matrix, whatever its name.

    The same module must hold floating-point numbers with an axis as long as one of the matrix, or
    2, 4 or 8 times as long, for as many weights in one number. Those, and vectors, are its
    companions.
    """
    is_whole = tensor.dtype.strip("u12346").startswith("int")
    if not is_whole or sum(size > 1 for size in tensor.shape) < MATRIX or is_mask(name, tensor):
        return
    module, _, leaf = name.rpartition(".")
    lengths = {size * count for size in tensor.shape if size > 1 for count in PACKED}
    own = {other: held for other, held in near.beginning_with(f"{name}_") if not _is_bias(other)}
    if not own and not lengths & near.float_lengths(module):
        return
    own = own or {
        other: held
        for other, held in near.beside(name).items()
        if other != leaf and not _is_bias(other)
    }
    quantised.count(len(own))
    fitting = {
        other
        for other, held in own.items()
        if lengths & {*held.shape} or sum(size > 1 for size in held.shape) < MATRIX
    }
    if any(lengths & {*own[other].shape} and own[other].dtype in FLOATS for other in fitting):
        quantised.schemes[name] = f"an unknown scheme ({tensor.dtype} beside its scales)"
        quantised.companions |= {
            f"{module}.{other}" if module else other: name for other in fitting
        }


def _by_format(name: str, tensor: Tensor, method: str) -> str:
    """Name of the scheme of a weight without companions; empty if it is plain."""
    if tensor.dtype in FLOATS or len(tensor.shape) < MATRIX or _is_bias(name):
        return ""
    if is_mask(name, tensor):
        return ""
    return _called(method) or ("FP8" if tensor.dtype.startswith("float8") else "")


def _with_bits(scheme: str, name: str, config: Mapping[str, Any]) -> str:
    """The scheme with its number of bits, if the config of MLX states it."""
    stated = config.get("quantization")
    if scheme != "MLX" or not isinstance(stated, Mapping):
        return scheme
    own = stated.get(name.removesuffix(".weight"))
    bits = (own if isinstance(own, Mapping) else stated).get("bits")
    return f"{scheme} ({bits} bits)" if type(bits) is int else scheme


def _is_bias(name: str) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf == "bias" or leaf.endswith("_bias")


def _called(method: str) -> str:
    return NAMES.get(method, printable(method, limit=40))


def _short(dtype: str) -> str:
    return "FP8" if dtype.startswith("float8") else dtype
