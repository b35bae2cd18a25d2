"""Reparametrised and pruned weights: recognised by their parts, and computed as the model does.

The parts of a weight are recognised by the ends that torch gives their names, and only if their
shapes fit: ``weight_orig`` with ``weight_mask`` (pruning), ``weight_g`` with ``weight_v`` (weight
norm), ``weight_orig`` with ``weight_u`` and ``weight_v`` (spectral norm), and the same below
``parametrizations``. The cost of an error: two tensors that only look like such parts are measured
as one matrix that the model does not have; the shapes of gains and vectors make that unlikely. Any
other parametrisation is not understood, since its input is not the weight. One that stores nothing,
on top of a known one, leaves no trace and is overlooked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankscope.checkpoints.account import Classed, Rest
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.derived import (
    Derived,
    Masked,
    Normalised,
    SpectrallyNormalised,
    axes_of_spectral_norm,
)
from rankscope.checkpoints.tensors import Tensor

INPUT = re.compile(r"(?:(?P<module>.+)\.)?parametrizations\.(?P<leaf>[^.]+)\.(?P<part>.+)")
PARAMETRISED = "parametrizations."
ORIGINALS = ("_orig", "_bar")  # torch's, and that of a spectral norm older than torch's
# Every such weight has a part whose name ends so, or one below `PARAMETRISED`.
ENDS = (*ORIGINALS, "mask", "_u", "_v", "_g")
ADVICE = "save the model without it (torch.nn.utils.parametrize.remove_parametrizations)"


def without_reparametrised(tensors: Mapping[str, Tensor], _: Mapping[str, Any]) -> Rest:
    """The tensors with every such weight in place of its parts, under its name in the model.

    Parameters
    ----------
    tensors
        By plain name. Configs do not mention reparametrisations.
    """
    if not any(name.endswith(ENDS) or PARAMETRISED in name for name in tensors):
        return Rest({**tensors})
    weights = _Weights(tensors)
    for name in tensors:
        if name not in weights.gone and INPUT.fullmatch(name) is None:
            weights.join(name)
    for name, parts in _parametrised(tensors).items():
        weights.join_parametrised(name, parts)
    return weights.rest()


@dataclass
class _Weights:
    """The tensors, the weights made of them so far, and what could not be made."""

    tensors: Mapping[str, Tensor]
    made: dict[str, Derived] = field(default_factory=dict)  # by the name of a part
    gone: set[str] = field(default_factory=set)  # names of all parts
    classed: list[Classed] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    def rest(self) -> Rest:
        """The weights in the order of their first parts, and all other tensors."""
        left: dict[str, Tensor] = {}
        for name, tensor in self.tensors.items():
            if name in self.made:
                left[self.made[name].name] = self.made[name]
            elif name not in self.gone:
                left[name] = tensor
        return Rest(left, tuple(self.classed), tuple(self.skips))

    def join(self, name: str) -> None:
        """Make a weight of the tensor of this name and its other parts, if it has any."""
        held = self.tensors
        weight = held[name]
        end = next((end for end in ORIGINALS if name.endswith(end)), "")
        stem = name.removesuffix(end)
        mask, left, right = (held.get(stem + part) for part in ("_mask", "_u", "_v"))
        if mask is not None and mask.shape == weight.shape and (end == "_orig" or _has_mask(name)):
            self._put(Masked(stem, weight, mask), name, f"{stem}_mask")
        elif end and left is not None and right is not None and _fits(weight, left, right):
            made = SpectrallyNormalised(stem, weight, left, right)
            self._put(made, name, f"{stem}_u", f"{stem}_v")
        elif end == "_orig":
            self._refuse([name], stem, "what it is multiplied by is not stored")
        elif name.endswith("_g") and (stem := name.removesuffix("_g")) not in held:
            direction = held.get(f"{stem}_v")
            if direction is not None and _is_gain(weight.shape, direction.shape):
                self._put(Normalised(stem, direction, weight), name, f"{stem}_v")
        elif (other := _mask_beside(name, held)) and weight.shape == held[other].shape:
            self._refuse([name, other], name, "a mask of its shape is beside it")

    def join_parametrised(self, weight_name: str, parts: Mapping[str, str]) -> None:
        """Make a weight of what is stored below ``parametrizations``, if its kind is known."""
        held = {part: self.tensors[name] for part, name in parts.items()}
        names = list(parts.values())
        match held:
            case {"original0": gain, "original1": direction, **rest} if not rest and _is_gain(
                gain.shape, direction.shape
            ):
                self._put(Normalised(weight_name, direction, gain), *names)
            case {"original": weight, "0._u": u, "0._v": v, **rest} if not rest and _fits(
                weight, u, v
            ):
                self._put(SpectrallyNormalised(weight_name, weight, u, v), *names)
            case _:
                self._refuse(names, weight_name, f"its parts are {', '.join(list(parts)[:4])}")

    def _put(self, made: Derived, *names: str) -> None:
        self.made[names[0]] = made
        self.gone.update(names)

    def _refuse(self, names: list[str], weight: str, why: str) -> None:
        message = f"is reparametrised in an unknown way ({why}): {ADVICE}"
        parts = [self.tensors[name] for name in names]
        self.skips.append(Skip(parts[0].paths[0], weight, "reparametrised", message))
        self.classed += [Classed(one, "not understood", f"{weight} {message}") for one in parts]
        self.gone.update(names)


def _has_mask(name: str) -> bool:
    """Whether a mask named after this tensor is one of pruning, since it is a weight or a bias."""
    return name.endswith(("weight", "bias")) or ".weight_" in name


def _mask_beside(name: str, tensors: Mapping[str, Tensor]) -> str:
    """Name of the buffer ``mask`` in the module of a weight; empty if there is none."""
    mask = f"{name.removesuffix('weight')}mask"
    return mask if name.endswith(".weight") and mask in tensors else ""


def _parametrised(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Names of what is stored below ``parametrizations``, by weight and part."""
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        if match := INPUT.fullmatch(name):
            weight = f"{match['module']}.{match['leaf']}" if match["module"] else match["leaf"]
            found.setdefault(weight, {})[match["part"]] = name
    return found


def _is_gain(gain: tuple[int, ...], direction: tuple[int, ...]) -> bool:
    """Whether the first shape is that of norms of the second over all its axes, or all but one."""
    if not gain:
        return len(direction) > 1
    return len(gain) == len(direction) > 1 and any(
        gain == tuple(size if axis == kept else 1 for axis, size in enumerate(direction))
        for kept in range(len(direction))
    )


def _fits(weight: Tensor, left: Tensor, right: Tensor) -> bool:
    """Whether the shapes of two vectors are those for the spectral norm of a weight."""
    if len(left.shape) != 1 or len(right.shape) != 1:
        return False
    return any(True for _ in axes_of_spectral_norm(weight.shape, left.shape[0], right.shape[0]))
