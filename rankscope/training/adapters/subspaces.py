"""The subspace that an adapter learns in: the rows of its new A.

G is the gradient of the effective weight, (out, in), with singular values s and right singular
vectors V; A (r, in) and B (out, r) are the factors of the adapter; Q (in, r) is an orthonormal
basis of A's rows.

A cycle begins with B = 0, where the gradient of B is ``scale * G @ A.T`` and that of A is zero: at
first an adapter sees only the part of G within A's rows. No choice of A changes the function, since
B is zero. Everything is computed on the CPU, in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankscope.errors import WrongSettingError
from rankscope.new_cycle import random_a
from rankscope.training.adapters.energies import finite_float64
from rankscope.training.config import Subspace


def new_a(
    kind: Subspace,
    shape: tuple[int, int],
    rank: int,
    *,
    generator: torch.Generator,
    gradient: Tensor | None = None,
) -> Tensor:
    """The A of a new cycle, (rank, in), float32, on the CPU.

    ``random`` draws every entry from U(-1/√in, 1/√in), as PyTorch initialises a linear layer. All
    other kinds have orthogonal rows of norm 1/√3, the root mean square norm of a random row, so
    that a learning rate means the same for all kinds:

    - ``orthogonal``: a uniformly random subspace;
    - ``grad_top``: the right singular vectors of the r largest singular values of G (GaLore);
    - ``grad_sample``: r right singular vectors, drawn without replacement with probability
      proportional to the singular value, then sorted by it, largest first (SARA);
    - ``mix``: the first half of ``grad_top``, rounded up, and random directions orthogonal to it.

    If G has fewer directions than needed, because it is zero, of low rank or has few rows, random
    directions orthogonal to them are added. A direction counts if its singular value exceeds the
    rounding noise of a float32 matrix, ``s[0] * max(shape) * 2**-23``. Signs are fixed: the largest
    component of each singular vector is positive. Among equal singular values the linear algebra
    library chooses the vectors.

    Parameters
    ----------
    kind
        See above.
    shape
        ``(out, in)`` of the weight.
    rank
        r, number of rows.
    generator
        The only source of randomness; on the CPU.
    gradient
        G, for the kinds that need it; others ignore it.

    Raises
    ------
    WrongSettingError
        If there are fewer columns than orthogonal rows are wanted.
    RankscopeError
        If G holds NaN or infinity.

    References
    ----------
    J. Zhao et al., "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", ICML
    2024. H. Zhang et al., "Breaking the Frozen Subspace: Importance Sampling for Low-Rank
    Optimization in LLM Pretraining", NeurIPS 2025 (SARA). Both choose where an optimizer projects
    gradients; here the same subspaces are given to the adapters of one cycle.
    """
    columns = shape[1]
    if kind == "random":
        return random_a(columns, rank, generator=generator)
    if rank > columns:
        raise WrongSettingError(
            f"{rank} rows cannot be orthogonal in {columns} dimensions: lower the rank, or set "
            f"relora.a_init = 'random' instead of {kind!r}"
        )
    if kind == "orthogonal":
        chosen = torch.empty(0, columns, dtype=torch.float64)
    elif gradient is None or gradient.shape != shape:
        given = "none" if gradient is None else tuple(gradient.shape)
        raise ValueError(f"{kind} needs a gradient of shape {tuple(shape)}, not {given}")
    else:
        chosen = _directions_of_gradient(kind, gradient, rank=rank, generator=generator)
    return (_completed(chosen, rank, generator=generator) / math.sqrt(3)).float()


def captured_energy(gradient: Tensor, a: Tensor) -> float:
    """Share of a gradient's energy within the rows of A, ``‖G Q‖²_F / ‖G‖²_F``, in [0, 1].

    For a random subspace it is r/in on average; at most it is the share of the r largest squared
    singular values, which ``grad_top`` reaches. 0 if the gradient or A is zero.

    Raises
    ------
    RankscopeError
        If the gradient or A holds NaN or infinity.
    """
    g = finite_float64(gradient, "a gradient")
    _, rows = _singular_directions(finite_float64(a, "lora_A"))
    total = g.square().sum()
    return min(1.0, float((g @ rows.T).square().sum() / total)) if total > 0 else 0.0


def overlap(a: Tensor, previous: Tensor) -> float:
    """Overlap of the row spaces of two A, ``‖Qₖᵀ Qₖ₋₁‖²_F / r``, in [0, 1].

    The mean squared cosine of their principal angles; r is the smaller of the two dimensions, so 1
    means that one space contains the other, and 0 that they are orthogonal. Two random spaces have
    (larger dimension)/in on average. 0 if either A is zero.

    Raises
    ------
    RankscopeError
        If either A holds NaN or infinity.
    """
    _, rows = _singular_directions(finite_float64(a, "lora_A"))
    _, others = _singular_directions(finite_float64(previous, "the previous lora_A"))
    r = min(len(rows), len(others))
    return min(1.0, float((rows @ others.T).square().sum() / r)) if r else 0.0


def _directions_of_gradient(
    kind: str, gradient: Tensor, *, rank: int, generator: torch.Generator
) -> Tensor:
    """At most ``rank`` right singular vectors as rows, descending."""
    s, rows = _singular_directions(finite_float64(gradient, "a gradient"))
    match kind:
        case "grad_top":
            return rows[:rank]
        case "grad_sample":
            if len(s) <= rank:
                return rows
            drawn = torch.multinomial(s, rank, generator=generator)
            return rows[drawn.sort().values]
        case "mix":
            return rows[: (rank + 1) // 2]
    raise ValueError(f"{kind!r} is not a subspace of a gradient")


def _singular_directions(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values above rounding noise, descending, and right singular vectors as rows."""
    _, s, rows = torch.linalg.svd(matrix, full_matrices=False)
    # The noise of float32, which gradients and factors are stored in, not of float64.
    rank = int((s > s[0] * max(matrix.shape) * torch.finfo(torch.float32).eps).sum())
    s, rows = s[:rank], rows[:rank]
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return s, rows * largest.sign()


def _completed(rows: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """The given orthonormal rows and random rows orthogonal to them, ``count`` in total."""
    missing, columns = count - len(rows), rows.shape[1]
    noise = torch.randn(columns, missing, dtype=torch.float64, generator=generator)
    q, r = torch.linalg.qr(torch.cat((rows.T, noise), dim=1))
    # These signs make the diagonal of R positive. Only then are the given rows returned as they
    # are, not negated, and the random ones uniformly distributed.
    basis: Tensor = q * r.diagonal().sign()
    return basis.T.contiguous()
