"""Intruders: leading singular vectors without a counterpart among those of an earlier matrix.

As PEFT defines them, after Shuttleworth et al. 2024: of the top 10 left singular vectors u′, those
whose largest |cosine| with any earlier left singular vector u is below 0.5. Where earlier values
are too close to separate their vectors, only the subspace of the cluster is known: with p the
length of u′ projected onto the subspace of c vectors, the largest cosine is between p/√c and p. So
each vector is certainly an intruder, certainly not one, or undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rankscope.spectra.bases import Basis, sine
from rankscope.spectra.bounds import Values

TOP = 10
LEAST_COSINE = 0.5
RESOLVED = 0.1  # the sine of an angle; a less certain boundary does not separate clusters


@dataclass(frozen=True)
class Intruders:
    """What is known about the leading vectors.

    Attributes
    ----------
    count
        How many vectors were examined: 10, or all if there are fewer.
    certain, undecided
        How many certainly are intruders, and how many the arithmetic leaves undecided.
    undecided_by_storage
        How many are undecided once rounding to the storage format is included.
    """

    count: int
    certain: int
    undecided: int
    undecided_by_storage: int


@dataclass(frozen=True)
class Cluster:
    """Neighbouring singular vectors, start to end, known only by their common subspace.

    Attributes
    ----------
    error
        Bound on the sine of the angle by which the subspace may be off.
    """

    start: int
    end: int
    error: float

    @property
    def size(self) -> int:
        """Number of vectors."""
        return self.end - self.start


def intruders_of(now: Basis, before: Basis) -> Intruders | None:
    """Count the intruders among the leading left vectors; None where not all vectors are known."""
    if before.complete is None or not now.count:
        return None
    count = min(TOP, now.count)
    decided = [_decide(now, before, count, floors) for floors in (False, True)]
    return Intruders(
        count,
        sum(one is True for one in decided[0]),
        sum(one is None for one in decided[0]),
        sum(one is None for one in decided[1]),
    )


def _decide(now: Basis, before: Basis, count: int, floors: bool) -> list[bool | None]:
    """Whether each leading vector is an intruder; None where that is uncertain."""
    ours = _clusters({k: _angle_of(now, k, floors) for k in range(1, now.count + 1)})
    theirs, cosines, rest = _all_clusters(before, now.left, floors)
    decided: list[bool | None] = []
    for index in range(count):
        own = next((one for one in ours if one.start <= index < one.end), None)
        decided.append(None if own is None else _is_intruder(own, theirs, cosines, rest))
    return decided


def _is_intruder(own: Cluster, theirs: list[Cluster], cosines: Values, rest: Values) -> bool | None:
    """Decide for all vectors of a cluster of leading vectors together, by squared cosines."""
    block = cosines[:, own.start : own.end]
    largest, smallest = _extremes(block, theirs)
    counts, errors = (np.array([getattr(x, name) for x in theirs]) for name in ("size", "error"))
    errors = errors + own.error
    # No unit vector of the cluster reaches further out than all its vectors combined.
    beyond = float(rest[own.start : own.end].sum()) + own.error
    if max(beyond, float((largest + errors).max(initial=0.0))) < LEAST_COSINE**2:
        return True
    least = float(((smallest - errors) / counts).max(initial=0.0))
    return False if least >= LEAST_COSINE**2 else None


def _extremes(block: Values, clusters: list[Cluster]) -> tuple[Values, Values]:
    """Largest and smallest squared length of a unit combination of the columns, in each cluster."""
    if block.shape[1] == 1:
        starts = [one.start for one in clusters]
        squares = np.add.reduceat(block[: clusters[-1].end, 0] ** 2, starts) if clusters else block
        return squares.ravel(), squares.ravel()
    found = [np.linalg.svd(block[one.start : one.end], compute_uv=False) ** 2 for one in clusters]
    columns = block.shape[1]
    return (
        np.array([values[0] for values in found]),
        np.array([values[-1] if len(values) == columns else 0.0 for values in found]),
    )


def _clusters(angles: Mapping[int, float]) -> list[Cluster]:
    """Clusters between boundaries, given how far off the leading vectors up to each may be.

    A boundary that is off by more than `RESOLVED` does not count: one cluster spans it.
    """
    found, start, above = [], 0, 0.0
    for end, angle in sorted(angles.items()):
        if angle <= RESOLVED:
            found.append(Cluster(start, end, above + angle))
            start, above = end, angle
    return found


def _angle_of(basis: Basis, k: int, floors: bool) -> float:
    return basis.error(k) + (basis.noise(k) if floors else 0.0)


def _all_clusters(
    before: Basis, vectors: Values, floors: bool
) -> tuple[list[Cluster], Values, Values]:
    """Clusters of all left vectors, their cosines with ``vectors``, and what is beyond them.

    Returns
    -------
    Clusters; cosines (q, K); and for each vector the squared length that may be outside all
    clusters, (K,).
    """
    complete, s = before.complete, before.values
    assert complete is not None
    floor = before.noise_floor if floors else 0.0
    with np.errstate(divide="ignore"):
        inverse = np.where(s > 0, 1 / s, np.inf)
    # The vectors are off by the bound divided by the gap of the squares, (s + s′)(s − s′) ≥ s (s −
    # s′).
    perturbations = complete.bound * inverse + floor
    gaps = before.lower - np.append(before.upper[1:], 0.0)
    angles = {
        k: sine(float(perturbations[k - 1]), float(gaps[k - 1])) for k in range(1, len(s) + 1)
    }
    if complete.is_left_short:
        cosines = complete.vectors.T @ vectors
        angles[len(s)] = 0.0  # together they span the whole side
    else:
        # u = A v / s, which is orthonormal up to the bound divided by s².
        angles = {
            k: angle + complete.bound * float(inverse[k - 1]) ** 2 for k, angle in angles.items()
        }
        finite = np.where(np.isfinite(inverse), inverse, 0.0)
        cosines = (complete.vectors.T @ (complete.wide @ vectors)) * finite[:, None]
    found = _clusters(angles)
    end = found[-1].end if found else 0
    rest = 1 - (cosines[:end] ** 2).sum(axis=0) + (angles[end] if end else 0.0)
    is_all = complete.is_left_short and end == len(s)
    return found, cosines, np.zeros(vectors.shape[1]) if is_all else np.clip(rest, 0.0, 1.0)
