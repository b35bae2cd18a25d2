"""What an optimizer remembers of adapters, such as Adam's moments."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from rankscope.errors import WrongSettingError

# They keep one history of all parameters, or state that only their construction makes.
UNSUPPORTED = ("LBFGS", "Adagrad", "ZeroRedundancyOptimizer")


def forgetful(
    optimizer: torch.optim.Optimizer, factors: Collection[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer that holds the state of these parameters, within whatever wraps it.

    Parameters
    ----------
    optimizer
        One of torch, or another that keeps the state of a parameter in ``state`` under this very
        parameter, as torch's do whether fused, foreach or neither; or accelerate's or Lightning's
        wrapper of one.
    factors
        Of the adapters.

    Raises
    ------
    WrongSettingError
        If it is of another kind, so that the state of the adapters would survive.
    """
    inner = optimizer
    while hasattr(inner, "optimizer"):
        inner = inner.optimizer
    name = type(inner).__name__
    if not isinstance(inner, torch.optim.Optimizer) or name in UNSUPPORTED:
        message = f"`optimizer` is of the class {name}, which cannot forget single parameters"
        raise WrongSettingError(f"{message}: use one that keeps its state by parameter, as AdamW")
    held = {id(p) for group in inner.param_groups for p in group["params"]}
    missing = sum(p.requires_grad and id(p) not in held for p in factors)
    if missing:
        message = f"`optimizer` does not hold {missing} of {len(factors)} factors of the adapters"
        raise WrongSettingError(
            f"{message}: make it from the model after `wrap`, without copies of its parameters"
        )
    return inner


def forget(optimizer: torch.optim.Optimizer, factors: Collection[nn.Parameter]) -> None:
    """Delete the state of these parameters, which begin anew as at the first step.

    Zeroed moments with the old step count would have no bias correction.
    """
    for factor in factors:
        optimizer.state.pop(factor, None)
