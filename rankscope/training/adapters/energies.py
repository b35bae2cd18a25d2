"""Singular values and energies of deltas and gradients, by which ranks are chosen.

σ are the singular values of a delta, g those of the gradient G of an effective weight; energies are
g², normalised to sum 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankscope.errors import RankscopeError


def core_singular_values(left: Tensor, right: Tensor) -> Tensor:
    """Singular values of ``left @ right`` without forming it: (min(out, r, in),), descending.

    With ``left = Q R`` and ``right.T = P S`` they are those of the small ``R @ S.T``. Float64, on
    the CPU; a value below 1e-16 times the largest is rounding noise.

    `rankscope.spectra` has the same with certificates, but the trainer shares nothing with the
    analysis except files, so that neither can hide a fault of the other.

    Parameters
    ----------
    left, right
        ``scale * B`` (out, r) and A (r, in).

    Raises
    ------
    RankscopeError
        If a factor holds NaN or infinity.
    """
    cores = [
        torch.linalg.qr(finite_float64(factor, name), mode="r").R
        for factor, name in ((left, "lora_B"), (right.T, "lora_A"))
    ]
    values: Tensor = torch.linalg.svdvals(cores[0] @ cores[1].T)
    return values


def energy_rank(values: Tensor, share: float) -> int:
    """Lowest k with ``Σ_{j≤k} σ²_j ≥ share * Σ σ²``, of descending values; 0 if all are zero."""
    if not values.any():
        return 0
    energy = values.square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


def normalised_energies(gradient: Tensor) -> Tensor:
    """Squared singular values of G over their sum, (n,), float64, descending.

    A zero gradient prefers no direction: 1/n each.

    Raises
    ------
    RankscopeError
        If the gradient holds NaN or infinity.
    """
    g = torch.linalg.svdvals(finite_float64(gradient, "a gradient"))
    energy: Tensor = g.square()  # float64 holds the square of every float32
    return energy / energy.sum() if g.any() else torch.full_like(g, 1 / len(g))


def averaged(previous: Tensor | None, new: Tensor) -> Tensor:
    """One step of an exponential moving average: the mean of the previous average and ``new``.

    It smooths energies over restarts, because a single probe gives noisy ranks. Without a previous
    average it returns ``new``; the average of normalised energies is normalised.
    """
    return new if previous is None else (previous + new) / 2


def finite_float64(tensor: Tensor, what: str) -> Tensor:
    """Values in float64 on the CPU; raises `RankscopeError` if one is NaN or infinite."""
    values = tensor.detach().to("cpu", torch.float64)
    if not values.isfinite().all():
        raise RankscopeError(
            f"{what} of shape {tuple(tensor.shape)} holds NaN or infinity, so it cannot decide on "
            "ranks or subspaces: try a lower schedule.learning_rate"
        )
    return values
