"""A model with adapters: its layers, their factors, and what it remembers of its restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from rankscope.errors import WrongSettingError
from rankscope.new_cycle import a_generator, random_a

Frozen = Literal["targets", "all"]
ADAPTER = "default"  # as PEFT calls the only adapter of a model
_KEPT = "_rankscope_relora"


@dataclass(frozen=True)
class MergedFactors:
    """What a merge added to a weight: ``scale · lora_B @ lora_A``.

    Attributes
    ----------
    lora_A, lora_B
        (r, in) and (out, r) as they were merged, on the CPU.
    scale
        The scale by which their product is multiplied.
    rounding
        Error from storing the sum: ‖stored − exact‖ / ‖delta‖ in Frobenius norms. About 1e-7 ·
        ‖W‖/‖delta‖ in float32. 1 or more means that nothing was added but rounding; 0 that there
        was nothing to add.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> model = relora.wrap(torch.nn.Sequential(torch.nn.Linear(6, 8)), rank=2)
    >>> merged = relora.restart(model)["0"]
    >>> merged.delta().shape, merged.scale, merged.rounding
    (torch.Size([8, 6]), 1.0, 0.0)
    """

    lora_A: Tensor
    lora_B: Tensor
    scale: float
    rounding: float

    def delta(self) -> Tensor:
        """What was to be added, (out, in), in float64."""
        return self.scale * (self.lora_B.double() @ self.lora_A.double())


class Waiting(NamedTuple):
    """A merge that no file records yet; ``certain`` if its step is known, not inferred."""

    step: int
    certain: bool
    restarts: int
    factors: dict[str, MergedFactors]


@dataclass
class Wrapping:
    """What a wrapped model remembers.

    Attributes
    ----------
    seed
        Of every A.
    frozen
        As given to `wrap`.
    trained
        Parameters that were trained before, by their names before.
    cycle, restarts
        The present cycle, and the merges before it.
    saved, saved_b
        The step of the last `save`, and a factor as it was then.
    merged
        The step of the last merge; None before the first.
    waiting
        Merges that no file records yet.
    """

    seed: int
    frozen: Frozen
    trained: frozenset[str]
    cycle: int = 0
    restarts: int = 0
    saved: int | None = None
    saved_b: Tensor | None = None
    merged: int | None = None
    waiting: list[Waiting] = field(default_factory=list)


def wrapped_in(model: nn.Module) -> PeftModel:
    """The model of `wrap` in a module, such as DDP or a LightningModule.

    Raises
    ------
    WrongSettingError
        If there is none.
    """
    for module in model.modules():
        if isinstance(module, PeftModel) and is_wrapped(module):
            return module
    raise WrongSettingError(f"{type(model).__name__} holds no model of relora.wrap: wrap it first")


def wrapping(model: PeftModel) -> Wrapping:
    """What the model of `wrap` remembers."""
    return cast(Wrapping, vars(model)[_KEPT])


def adapted(model: PeftModel) -> dict[str, LoraLinear]:
    """Every layer with an adapter, by its name in the plain model."""
    return {
        name: layer
        for name, layer in model.get_base_model().named_modules()
        if isinstance(layer, LoraLinear)
    }


def factors_of(layer: LoraLinear) -> tuple[nn.Parameter, nn.Parameter, float]:
    """A (r, in), B (out, r) and the factor of B·A."""
    a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    return cast(nn.Parameter, a), cast(nn.Parameter, b), float(layer.scaling[ADAPTER])


@torch.no_grad()
def draw(layer: LoraLinear, name: str, *, seed: int, cycle: int) -> None:
    """Begin an adapter in place: A random, B zero."""
    a, b, _ = factors_of(layer)
    a.copy_(random_a(a.shape[1], a.shape[0], generator=a_generator(seed, cycle=cycle, name=name)))
    b.zero_()


@torch.no_grad()
def match_weight(layer: LoraLinear) -> None:
    """Give the factors the dtype and the device of their weight."""
    weight = cast(Tensor, layer.get_base_layer().weight)
    for factor in (layer.lora_A, layer.lora_B):
        factor.to(device=weight.device, dtype=weight.dtype)


def is_wrapped(model: nn.Module) -> bool:
    """Whether a module is itself a model of `wrap`."""
    return _KEPT in vars(model)


def keep_wrapping(model: PeftModel, kept: Wrapping) -> None:
    """Let a model remember."""
    setattr(model, _KEPT, kept)


def forget_wrapping(model: PeftModel) -> None:
    """Let a model be one of `wrap` no longer."""
    delattr(model, _KEPT)


def plain_name(name: str) -> str:
    """Name of a parameter without the part that PEFT adds to it."""
    return name.replace(".base_layer.", ".")
