"""`Parted`: the tensors of a checkpoint, told apart into weights, deltas and factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Delta, Skip
from rankscope.checkpoints.tensors import Tensor


@dataclass(frozen=True)
class Parted:
    """What becomes of tensors some of which are factors.

    Attributes
    ----------
    tensors
        Weights by plain name, among them those that are products by construction; and all else
        that is not a factor.
    adapters
        Deltas by the module whose weight each changes.
    factors
        Factors with an activation between them, as (outputs, inputs), by name and module.
    apart
        Modules whose weight in the model's function is not the weight plus the delta.
    uncut
        Modules whose delta has more columns than their weight: those of the widest module.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: Mapping[str, Delta] = field(default_factory=dict)
    factors: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()
    uncut: frozenset[str] = frozenset()
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
    aside: tuple[Classed, ...] = ()


NONE = Parted()
