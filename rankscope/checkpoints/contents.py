"""What one checkpoint holds, in the words that the analysis uses: parameters, adapters, heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Skip:
    """Something that was found and left out, and why."""

    path: str
    tensor: str
    reason: str  # a short code, such as "adapter-incomplete"
    message: str

    def __str__(self) -> str:
        return str(RankscopeError(self.message, path=self.path or None, tensor=self.tensor or None))


Class = Literal["matrix", "part of", "no linear map", "optimizer", "not understood"]


@dataclass(frozen=True)
class Accounted:
    """One tensor as stored, and the class that it ended in.

    Attributes
    ----------
    tensor
        Its name in the file.
    kind
        ``matrix``: measured. ``part of``: measured as part of the matrix that ``reason`` names.
        ``no linear map``: a vector, norm, position, mask or buffer. ``optimizer``: state that a
        training keeps for itself. ``not understood``: not measured, and a skip says so.
    reason
        The role of a matrix; else why the tensor is in its class.
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
        None where no file states it. Ranks do not depend on it; norms and the weight that the
        model uses do.
    magnitude
        Norms that DoRA gives to the rows of the weight, (out, 1), or to its columns, (1, in). The
        model then uses magnitude · (W + delta) / ‖W + delta‖, and the delta is not its change.
    """

    lora_A: Tensor  # (r, in)
    lora_B: Tensor  # (out, r)
    scale: float | None
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it belongs to, (out, in)."""
        return self.lora_B.shape[0], self.lora_A.shape[1]

    @property
    def rank(self) -> int:
        """Inner dimension r."""
        return self.lora_A.shape[0]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that it is read from."""
        factors = self.lora_A, self.lora_B
        return factors if self.magnitude is None else (*factors, self.magnitude)


@dataclass(frozen=True)
class KroneckerAdapter:
    """A delta on disk that is a Kronecker product: ``scale · first ⊗ second``, as LoKr has it.

    Attributes
    ----------
    rows
        Those of the delta that it stands for, where a fused weight was cut between the blocks of
        ``second``: first row, and size and stride of every axis. None for all.
    """

    first: Tensor
    second: Tensor
    scale: float | None
    rows: tuple[int, tuple[tuple[int, int], ...]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the weight that it belongs to, (out, in)."""
        height, width = (a * b for a, b in zip(self.first.shape, self.second.shape, strict=True))
        return height if self.rows is None else prod(n for n, _ in self.rows[1]), width

    @property
    def rank(self) -> int:
        """The most that its construction allows."""
        most = min(self.first.shape) * min(self.second.shape)
        return min(most, *self.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that it is read from."""
        return self.first, self.second


Delta = Adapter | KroneckerAdapter


def is_rescaled(delta: Delta | None) -> bool:
    """Whether the model rescales the weight with the delta in it, so that it is not the change."""
    return isinstance(delta, Adapter) and delta.magnitude is not None


@dataclass(frozen=True)
class Parameter:
    """One weight matrix of a checkpoint: the stored tensor, its adapter, or both.

    Attributes
    ----------
    name
        Name of the tensor; of a part of a fused or stacked one, with the part in brackets.
    module
        Path of the module that it belongs to.
    tensor
        The matrix as (outputs, inputs), whatever its file has.
    block
        Path of the block of the model that it lies in; empty outside of blocks.
    heads
        Attention heads of the tower that it lies in; None where they are not known.
    is_factor
        Whether it is one of two factors with an activation between them. Then their product is not
        a linear map, and the factor is measured as what it is.
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows (outputs) and columns (inputs)."""
        if self.tensor is not None:
            return self.tensor.shape
        return self.adapter.shape if self.adapter is not None else ()

    @property
    def dtype(self) -> str:
        """Storage format of the weight; of the adapter where there is no weight."""
        if self.tensor is not None:
            return self.tensor.dtype
        return self.adapter.tensors[0].dtype if self.adapter is not None else ""


@dataclass(frozen=True)
class Heads:
    """Attention heads of a model; ``kv_count`` of them have keys and values of their own."""

    count: int
    kv_count: int
    size: int


@dataclass(frozen=True)
class Contents:
    """Everything that a layout found in one checkpoint. Holds no data.

    Attributes
    ----------
    account
        Every tensor of the checkpoint's files once, with the class that it ended in.
    notes
        What is worth a line although nothing is missing from the results.
    base
        Folder of the model that an adapter was put on, where it was found.
    base_named
        What the adapter's config calls that model; two states of an adapter are compared without
        it where they name the same.
    restarts
        How often the adapters had been merged and started anew, where the layout records it. None
        for this package's own runs, which keep the merges themselves.
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

    @property
    def adapted(self) -> frozenset[str]:
        """Modules that have an adapter."""
        return frozenset(p.module for p in self.parameters.values() if p.adapter is not None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of tensors that are not a linear map, such as norms."""
        return tuple(one.tensor for one in self.account if one.kind == "no linear map")


def restarts_between(earlier: Contents, later: Contents) -> int:
    """Merges from one checkpoint to a later one of the same run; 0 where they are not counted.

    A trainer that resumes may count from zero again: then it is those since, and any between
    ``earlier`` and the checkpoint that it resumed from are not known.
    """
    now, before = later.restarts, earlier.restarts or 0
    if now is None:
        return 0
    return now - before if now >= before else now
