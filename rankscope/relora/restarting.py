"""A restart: the adapters are merged and begun anew, and the optimizer forgets the old ones."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from rankscope.errors import WrongSettingError
from rankscope.new_cycle import announce_restart
from rankscope.relora.adapted_model import (
    MergedFactors,
    Waiting,
    Wrapping,
    adapted,
    draw,
    factors_of,
    wrapped_in,
    wrapping,
)
from rankscope.relora.merging import merge, require_finite

# They keep one history of all parameters, or state that only their construction makes.
UNSUPPORTED = ("LBFGS", "Adagrad", "ZeroRedundancyOptimizer")


def restart(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    cycle: int | None = None,
    step: int | None = None,
) -> dict[str, MergedFactors]:
    """Merge every adapter into its weight and begin a new one; the function stays the same.

    Each weight is summed in float64 and rounded once, to its own dtype. A is drawn anew and B is
    set to zero, in place, so the optimizer's groups stay as they are. Only the adapters' part of
    the optimizer's state is deleted. Gradients of the adapters are cleared; those of other
    parameters stay, since they are right for the new adapters too, even in the middle of an
    accumulation. A gradient scaler is not affected.

    A `rankscope.Monitor` of the model is notified.

    In a distributed training, every process calls it. All draw the same A, and merge the same
    numbers if their devices compute alike.

    Parameters
    ----------
    model
        A model returned by `wrap`, or one that contains it, as DDP does.
    optimizer
        The optimizer that trains it. With None, only the adapters' gradients are cleared.
    cycle
        Number of the cycle that begins, which together with the seed determines A; by default the
        next one.
    step
        Optimizer steps completed, for the record of the merge that the next `save` writes. By
        default the step of the last `save`, which is right if you save just before.

    Returns
    -------
    What was merged into each layer, by its name.

    Raises
    ------
    RankscopeError
        If a factor holds NaN or infinity, or a weight is sharded; nothing is changed then.
    WrongSettingError
        If the optimizer's state of the adapters cannot be deleted, or the cycle or the step is in
        the past.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> model = relora.wrap(torch.nn.Sequential(torch.nn.Linear(6, 8)), rank=2, seed=1)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> x = torch.ones(3, 6)
    >>> for _ in range(2):
    ...     model(x).square().mean().backward()
    ...     optimizer.step()
    >>> before = model(x)
    >>> merged = relora.restart(model, optimizer, cycle=1, step=2)
    >>> torch.allclose(model(x), before, atol=1e-6)
    True
    >>> merged["0"].delta().norm() > 0
    tensor(True)
    """
    wrapped = wrapped_in(model)
    kept, layers = wrapping(wrapped), adapted(wrapped)
    cycle = kept.cycle + 1 if cycle is None else cycle
    if cycle <= kept.cycle:
        message = (
            f"`cycle` is {cycle}, but cycle {kept.cycle} has begun, and one of the same number"
        )
        raise WrongSettingError(f"{message} would draw the same A: give a greater number")
    factors = {name: factors_of(layer)[:2] for name, layer in layers.items()}
    step, certain = _step(kept, step, b=next(iter(factors.values()))[1])
    inner = None
    if optimizer is not None:
        inner = forgetful(optimizer, [one for pair in factors.values() for one in pair])
    require_finite(layers)
    merged = {}
    for name, layer in layers.items():  # each is whole again before the next is changed
        merged[name] = merge(layer, name)
        draw(layer, name, seed=kept.seed, cycle=cycle)
        for factor in factors[name]:
            factor.grad = None
        if inner is not None:
            forget(inner, factors[name])
    kept.cycle, kept.restarts, kept.merged = cycle, kept.restarts + 1, step
    kept.waiting.append(Waiting(step, certain, kept.restarts, merged))
    announce_restart(layers.values(), step if certain else None)
    return merged


def _step(kept: Wrapping, step: int | None, *, b: Tensor) -> tuple[int, bool]:
    """The step of a merge, and whether that is known rather than inferred.

    Parameters
    ----------
    b
        The factor that `save` kept, as it is now.
    """
    earliest = max(kept.saved or 0, -1 if kept.merged is None else kept.merged + 1)
    if step is None:
        is_at_save = kept.saved_b is not None and torch.equal(b.detach().cpu(), kept.saved_b)
        return earliest, is_at_save and kept.saved == earliest
    if step < earliest:
        what = "a merge or a `save`" if kept.merged is not None else "a `save`"
        raise WrongSettingError(f"`step` is {step}, but after {what} it is at least {earliest}")
    return step, True


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
    """Delete the state of these parameters, which start again as at the first step.

    Zeroed moments with the old step count would have no bias correction.
    """
    for factor in factors:
        optimizer.state.pop(factor, None)
