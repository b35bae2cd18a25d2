"""The rank of every adapter, chosen anew at each restart.

r is the rank of the adapter of a weight (out, in), at most n = min(out, in), with r * (out + in)
trainable parameters; σ are the singular values of the delta that a cycle added; g those of G, the
gradient of the effective weight. Energies are g², normalised to sum 1.

A policy may choose the multiples of ``multiple`` from ``minimum`` to ``maximum``, where 0 stands
for n. A module too small for the lowest of them gets the largest rank that it can have.
`allowed_rank` is the one place that decides this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from rankscope.errors import WrongSettingError
from rankscope.metrics import effective_rank
from rankscope.training.adapters.energies import energy_rank, finite_float64
from rankscope.training.config import ReLoRAConfig

SATURATED, GROWTH = 0.85, 1.5  # a rank used to this share grows by this factor
IDLE, MARGIN, KEPT_ENERGY = 0.6, 1.25, 0.9  # one used less shrinks to this × what holds the energy

Shapes = Mapping[str, tuple[int, int]]


def next_ranks(
    settings: ReLoRAConfig,
    base_rank: int,
    shapes: Shapes,
    *,
    cycle: int,
    cycles: int,
    deltas: Mapping[str, Tensor],
    ranks: Mapping[str, int],
    energies: Mapping[str, Tensor],
) -> dict[str, int]:
    """Rank of every adapter of the cycle that begins, by ``settings.rank_policy``.

    - ``fixed``: ``base_rank``.
    - ``budget``: `budget_ranks` of the energies, from the first cycle on.
    - ``saturation``: `saturation_rank` of each delta; ``base_rank`` for a module without a delta,
      as in the first cycle.
    - ``schedule``: `scheduled_rank` from ``base_rank`` to ``settings.final_rank``.

    Parameters
    ----------
    settings
        Policy and bounds.
    base_rank
        ``adapter.rank``.
    shapes
        ``(out, in)`` of every wrapped weight.
    cycle, cycles
        Number of the cycle that begins, from 0, and how many there are.
    deltas
        Singular values of the deltas just merged, as `core_singular_values` returns them.
    ranks
        Ranks of the cycle that ended, at least for the modules in ``deltas``.
    energies
        Normalised energies of G, (n,), for ``budget``; other policies ignore them.

    Raises
    ------
    WrongSettingError
        If the bounds leave no choice.
    RankscopeError
        If a spectrum holds NaN or infinity.
    """
    minimum, maximum = settings.minimum_rank, settings.maximum_rank
    multiple, policy = settings.rank_multiple, settings.rank_policy
    if policy == "budget":
        return budget_ranks(
            energies, shapes, rank=base_rank, minimum=minimum, maximum=maximum, multiple=multiple
        )
    chosen = {}
    for name, shape in shapes.items():
        cap = _cap(shape, maximum)
        if policy == "fixed":
            chosen[name] = base_rank
        elif policy == "saturation" and name in deltas:
            chosen[name] = saturation_rank(
                deltas[name], ranks[name], minimum=minimum, maximum=cap, multiple=multiple
            )
        elif policy == "saturation":
            chosen[name] = allowed_rank(base_rank, minimum=minimum, maximum=cap, multiple=multiple)
        elif policy == "schedule":
            wanted = scheduled_rank(cycle, cycles, start=base_rank, end=settings.final_rank)
            chosen[name] = allowed_rank(wanted, minimum=minimum, maximum=cap, multiple=multiple)
        else:
            raise ValueError(f"{policy!r} is not a rank policy")
    return chosen


def budget_ranks(
    energies: Mapping[str, Tensor],
    shapes: Shapes,
    *,
    rank: int,
    minimum: int,
    maximum: int,
    multiple: int,
) -> dict[str, int]:
    """Ranks with the trainable parameters of a uniform rank, spent where gradients need them.

    The budget is ``Σ min(rank, n) * (out + in)``: a module smaller than ``rank`` counts with n,
    the most that it can have. Every module starts at its lowest allowed rank. Then, repeatedly, the
    step of ``multiple`` ranks with the largest normalised energy per parameter,
    ``Σ g² / (‖G‖²_F * multiple * (out + in))``, is taken among those that still fit. Of equal steps
    the one from the lower rank comes first, then the one of the alphabetically first name.

    So the total never exceeds the budget, and the rest of it does not pay for a further step. Only
    the shape of each module's spectrum counts, not the size of its gradient. G is used because it
    has more directions than the adapter: the delta of an adapter of rank r has at most r.

    Parameters
    ----------
    energies
        From `normalised_energies`, descending; missing entries at the end count as 0.
    shapes
        ``(out, in)`` of every wrapped weight.
    rank
        The uniform rank.
    minimum, maximum, multiple
        Of the ranks to choose from; a maximum of 0 stands for n.

    Raises
    ------
    WrongSettingError
        If the lowest ranks cost more than the budget.
    RankscopeError
        If energies hold NaN or infinity.

    Notes
    -----
    A rule of this package. One budget for all modules, spent on single directions by a score, is
    the idea of AdaLoRA (Zhang et al. 2023, arXiv:2303.10512); scoring a direction by its share of
    the explained energy is the idea of InRank (Zhao et al. 2023, arXiv:2306.11250).
    """
    ranks, steps = {}, []
    for name, shape in shapes.items():
        cap = _cap(shape, maximum)
        lowest, highest = (
            allowed_rank(r, minimum=minimum, maximum=cap, multiple=multiple) for r in (1, cap)
        )
        ranks[name] = lowest
        energy = finite_float64(energies[name], f"the energy spectrum of {name}").tolist()
        for r in range(lowest, highest, multiple):
            steps.append((-math.fsum(energy[r : r + multiple]) / sum(shape), r, name))
    uniform = {name: min(rank, *shape) for name, shape in shapes.items()}
    left = adapter_parameters(uniform, shapes) - adapter_parameters(ranks, shapes)
    if left < 0:
        raise WrongSettingError(
            f"adapter.rank = {rank} does not pay for relora.minimum_rank = {minimum} and "
            f"relora.rank_multiple = {multiple} in every module: raise the first, or lower these"
        )
    # All steps of a module cost the same and each is worth less than the one before, so they come
    # in order, and once one does not fit, none of the module's others does.
    for _, _, name in sorted(steps):
        cost = multiple * sum(shapes[name])
        if cost <= left:
            left -= cost
            ranks[name] += multiple
    return ranks


def saturation_rank(values: Tensor, rank: int, *, minimum: int, maximum: int, multiple: int) -> int:
    """Next rank of a module by how much of its rank the last delta used, ``u = erank(σ) / r``.

    u ≥ 0.85: ``ceil(1.5 r)``. u ≤ 0.6: ``ceil(1.25 r₀.₉)``, with r₀.₉ the `energy_rank` of 90%.
    Otherwise r. The result is rounded to an `allowed_rank`. A zero delta leaves r unchanged.

    σ is censored: the delta of r factors cannot have an effective rank above r, however many
    directions the update needed. So a high u only means that r was used up, and the rank grows by
    a factor instead of to a measured value; rank 1 always counts as used up, since its u is 1. The
    number of trainable parameters changes: report it (`adapter_parameters`) with every result.

    Parameters
    ----------
    values
        σ, from `core_singular_values`.
    rank
        r of the cycle that ended.
    minimum, maximum, multiple
        Of the ranks to choose from; the maximum is at most n.

    Raises
    ------
    RankscopeError
        If σ holds NaN or infinity.

    Notes
    -----
    A rule of this package. Ranks that grow as the spectrum of the update fills are the idea of
    InRank (Zhao et al. 2023, arXiv:2306.11250).
    """
    values = finite_float64(values, "the spectrum of a delta")
    used = effective_rank(values.numpy()) / rank  # NaN for a zero delta: neither case below
    wanted = rank
    if used >= SATURATED:
        wanted = math.ceil(GROWTH * rank)
    elif used <= IDLE:
        wanted = math.ceil(MARGIN * energy_rank(values, KEPT_ENERGY))
    return allowed_rank(wanted, minimum=minimum, maximum=maximum, multiple=multiple)


def scheduled_rank(cycle: int, cycles: int, *, start: int, end: int) -> int:
    """Rank of cycle k of K on a straight line, ``round(start + (end - start) * k / (K - 1))``.

    The baseline for the policies that measure. A single cycle has the rank ``start``; halves are
    rounded to the even number.
    """
    if cycles <= 1:
        return start
    return round(start + (end - start) * cycle / (cycles - 1))


def allowed_rank(rank: int, *, minimum: int, maximum: int, multiple: int) -> int:
    """Lowest multiple of ``multiple`` that is at least ``rank`` and ``minimum``.

    At most the last multiple up to ``maximum``; if no multiple lies between ``minimum`` and
    ``maximum``, the rank is ``maximum`` itself.
    """
    smallest = math.ceil(minimum / multiple) * multiple
    if smallest > maximum:
        return maximum
    return min(max(math.ceil(rank / multiple) * multiple, smallest), maximum // multiple * multiple)


def adapter_parameters(ranks: Mapping[str, int], shapes: Shapes) -> int:
    """Trainable parameters of the adapters, ``Σ r * (out + in)``."""
    return sum(r * sum(shapes[name]) for name, r in ranks.items())


def _cap(shape: tuple[int, int], maximum: int) -> int:
    """Largest rank that a module of this shape can get."""
    return min(maximum or min(shape), *shape)
