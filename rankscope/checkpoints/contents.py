"""`Contents`: what one checkpoint holds, as the analysis needs it: parameters, adapters, heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NamedTuple

from rankscope.checkpoints.file_states import State
from rankscope.checkpoints.skip import Skip as Skip
from rankscope.checkpoints.tensors import Tensor

Class = Literal["matrix", "part of", "no linear map", "optimizer", "not understood"]


class Accounted(NamedTuple):
    """One tensor as stored, and its class.

    Attributes
    ----------
    tensor
        Its name in the file.
    kind
        ``matrix``: measured. ``part of``: measured as part of the matrix that ``reason`` names.
        ``no linear map``: a vector, norm, table of positions, mask or buffer. ``optimizer``: state
        that a training keeps for itself. ``not understood``: not measured, with a skip.
    reason
        The role of a matrix; otherwise why the tensor is in its class.
    """

    path: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    kind: Class
    reason: str


@dataclass(frozen=True)
class Adapter:
    """A low-rank delta on disk: ``scale · lora_B @ lora_A``.

    Attributes
    ----------
    scale
        None if no file states it. Ranks do not depend on it; norms and the weight that the model
        uses do.
    magnitude
        Norms that DoRA gives to the rows of the weight, (out, 1), or to its columns, (1, in). The
        model then uses magnitude · (W + delta) / ‖W + delta‖, so the delta is not the change of W.
    """

    lora_A: Tensor  # (r, in)
    lora_B: Tensor  # (out, r)
    scale: float | None
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes, (out, in)."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    @property
    def rank(self) -> int:
        """Inner dimension r."""
        return self.lora_A.shape[0]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that it is made of."""
        factors = self.lora_A, self.lora_B
        return factors if self.magnitude is None else (*factors, self.magnitude)


@dataclass(frozen=True)
class KroneckerAdapter:
    """A delta on disk that is a Kronecker product: ``scale · first ⊗ second``, as in LoKr.

    Attributes
    ----------
    rows
        The rows of the product that it consists of, if a fused weight was cut within a block of
        ``second``: first row, and size and stride of every axis. None for all rows.
    """

    first: Tensor
    second: Tensor
    scale: float | None
    rows: tuple[int, tuple[tuple[int, int], ...]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it changes, (out, in)."""
        height, width = (a * b for a, b in zip(self.first.shape, self.second.shape, strict=True))
        return height if self.rows is None else prod(n for n, _ in self.rows[1]), width

    @property
    def rank(self) -> int:
        """The highest rank that its construction allows."""
        most = min(self.first.shape) * min(self.second.shape)
        return min(most, *self.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that it is made of."""
        return self.first, self.second


Delta = Adapter | KroneckerAdapter


def is_rescaled(delta: Delta | None) -> bool:
    """Whether the model rescales the sum of weight and delta, so the delta is not the change."""
    return isinstance(delta, Adapter) and delta.magnitude is not None


class Parameter(NamedTuple):
    """One weight matrix of a checkpoint: the stored tensor, its adapter, or both.

    Attributes
    ----------
    name
        Name of the tensor; for a part of a fused or stacked tensor, with the part in brackets.
    module
        Path of the module that it belongs to.
    tensor
        The matrix as (outputs, inputs), however it is stored. None for an adapter alone.
    block
        Path of the block of the model that it is in; empty outside of blocks.
    heads
        Attention heads of the tower that it is in; None if unknown.
    norm
        What normalises its outputs before they are multiplied further, or its inputs if its role is
        o; None if nothing does.
    is_factor
        Whether it is one of two factors with an activation between them. Their product is not a
        linear map then, and each factor is measured by itself.
    """

    name: str
    module: str
    layer: int | None
    role: str
    expert: int | None
    tensor: Tensor | None
    adapter: Delta | None = None
    is_factor: bool = False
    block: str = ""
    heads: Heads | None = None
    norm: GainedNorm | UnknownNorm | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows (outputs) and columns (inputs)."""
        if self.tensor is not None:
            return self.tensor.shape
        return self.adapter.shape if self.adapter is not None else ()

    @property
    def dtype(self) -> str:
        """Storage format of the weight, or of the adapter if there is no weight."""
        if self.tensor is not None:
            return self.tensor.dtype
        return self.adapter.tensors[0].dtype if self.adapter is not None else ""


@dataclass(frozen=True)
class Heads:
    """Attention heads of a model, with the number of heads for keys and values."""

    count: int
    kv_count: int
    size: int


@dataclass(frozen=True)
class LatentHeads(Heads):
    """Heads of latent attention, whose keys and values are made of one latent vector.

    Attributes
    ----------
    size
        Of a query: what is compared with the latent, then ``rotary`` entries for the position.
    value_size
        Of a value.
    rotary
        Entries of a query, and of the key that all heads share, that only rotary positions use.
    """

    value_size: int
    rotary: int


@dataclass(frozen=True)
class GainedNorm:
    """A norm with a gain: x ↦ (offset + gain) · x / (a number for each token).

    Attributes
    ----------
    is_centred
        Whether the mean of x is subtracted first, as LayerNorm does.
    """

    gain: Tensor
    offset: float = 0.0
    is_centred: bool = False


@dataclass(frozen=True)
class UnknownNorm:
    """Something that is, or should be, between two maps, and is not known for certain."""

    reason: str  # a short code, as in `Skip`
    message: str


@dataclass(frozen=True)
class Contents:
    """Everything that a layout found in one checkpoint. It holds no data.

    Attributes
    ----------
    account
        Every tensor in the checkpoint's files once, with its class.
    notes
        What is worth a line although nothing is missing from the results.
    base
        Folder of the model that an adapter was put on; None if it was not found.
    base_named
        What the adapter's config calls that model. Two states of an adapter that name the same
        model can be compared without it.
    restarts
        How often the adapters had been merged and restarted, if the layout records that. None for
        rankscope's own runs, which record the merges themselves.
    states
        The state of each of its files before any header was read: what the headers say holds only
        for that state.
    of_deltas
        The parameters that other deltas of this model belong to, such as merges, by the tables that
        its own were found by; None if it was made without them.
    """

    layout: str
    family: str
    parameters: Mapping[str, Parameter]
    gradients: Mapping[str, Parameter] = field(default_factory=dict)
    heads: Heads | None = None
    skips: tuple[Skip, ...] = ()
    account: tuple[Accounted, ...] = ()
    notes: tuple[Skip, ...] = ()
    base: str | None = None
    base_named: str | None = None
    restarts: int | None = None
    states: Mapping[str, State] = field(default_factory=dict, repr=False, compare=False)
    of_deltas: Callable[[Mapping[str, Delta]], Mapping[str, Parameter]] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def adapted(self) -> frozenset[str]:
        """Modules that have an adapter."""
        return frozenset(p.module for p in self.parameters.values() if p.adapter is not None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the tensors that are not a linear map, such as norms."""
        return tuple(one.tensor for one in self.account if one.kind == "no linear map")


def restarts_between(earlier: Contents, later: Contents) -> int:
    """Merges between two checkpoints of a run; 0 if they are not counted.

    A resumed trainer may count from zero again. Then this is the number since it resumed; merges
    between ``earlier`` and the checkpoint that it resumed from are not known.
    """
    now, before = later.restarts, earlier.restarts or 0
    if now is None:
        return 0
    return now - before if now >= before else now
