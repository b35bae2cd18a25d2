"""Intruders: leading singular vectors without a counterpart among those of an earlier matrix.

As PEFT defines them, after Shuttleworth et al. 2024: of the top 10 left singular vectors u′, those
whose largest |cosine| with any earlier left singular vector u is below 0.5. Where earlier values
are too close to separate their vectors, only the subspace of the cluster is known: with p the
length of u′ projected onto the subspace of c vectors, the largest cosine is between p/√c and p. So
each vector is certainly an intruder, certainly not one, or undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class Clusters(NamedTuple):
    """Runs of neighbouring singular vectors, each known only by its common subspace.

    Attributes
    ----------
    starts, ends
        Indices of the first vector of each and of the one after its last; (c,).
    errors
        Bounds on the sine of the angle by which each subspace may be off; (c,).
    """

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    errors: Values

    @classmethod
    def between(cls, angles: Values) -> Clusters:
        """Clusters between boundaries, given how far off the leading 1, 2, … vectors may be.

        A boundary that is off by more than `RESOLVED` does not count: one cluster spans it.
        """
        ends = np.flatnonzero(angles <= RESOLVED) + 1
        own = angles[ends - 1]
        return cls(np.append(0, ends)[:-1], ends, own + np.append(0.0, own)[:-1])


def intruders_of(now: Basis, before: Basis) -> Intruders | None:
    """Count the intruders among the leading left vectors; None where not all vectors are known."""
    if before.complete is None or not now.count:
        return None
    cosines = _cosines(now, before)
    decided, stored = (_decided(now, before, cosines, floors=floors) for floors in (False, True))
    return Intruders(len(decided), decided.count(True), decided.count(None), stored.count(None))


def likely_intruders(now: Basis, before: Basis) -> float | None:
    """The same as one number, without the rounding of storage: half of the undecided count."""
    if before.complete is None or not now.count:
        return None
    decided = _decided(now, before, _cosines(now, before), floors=False)
    return decided.count(True) + decided.count(None) / 2


def _decided(now: Basis, before: Basis, cosines: Values, *, floors: bool) -> list[bool | None]:
    """Whether each leading vector is an intruder, and None where that is uncertain."""
    count = min(TOP, now.count)
    ks = range(1, now.count + 1)
    ours = Clusters.between(np.array([_angle_of(now, k, floors) for k in ks]))
    theirs, rest = _all_clusters(before, cosines, floors)
    decided: list[bool | None] = []
    for start, end, error in zip(*ours, strict=True):
        if start < count:
            one = _is_intruder(cosines[:, start:end], rest[start:end], float(error), theirs)
            decided += [one] * (min(end, count) - start)
    return decided + [None] * (count - len(decided))


def _is_intruder(block: Values, rest: Values, error: float, theirs: Clusters) -> bool | None:
    """Decide for all vectors of a cluster of leading vectors together, by squared cosines."""
    largest, smallest = _extremes(block, theirs)
    errors = theirs.errors + error
    # No unit vector of the cluster reaches further out than all its vectors combined.
    beyond = float(rest.sum()) + error
    if max(beyond, float((largest + errors).max(initial=0.0))) < LEAST_COSINE**2:
        return True
    counts = theirs.ends - theirs.starts
    least = float(((smallest - errors) / counts).max(initial=0.0))
    return False if least >= LEAST_COSINE**2 else None


def _extremes(block: Values, clusters: Clusters) -> tuple[Values, Values]:
    """Largest and smallest squared length of a unit combination of the columns, in each cluster."""
    if not len(clusters.ends):
        return np.empty(0), np.empty(0)
    squares = np.einsum("ij,ij->i", block, block)[: clusters.ends[-1]]
    largest = np.add.reduceat(squares, clusters.starts)
    columns = block.shape[1]
    if columns == 1:
        return largest, largest
    smallest = np.zeros(len(largest))
    for index in np.flatnonzero(clusters.ends - clusters.starts > 1):
        part = block[clusters.starts[index] : clusters.ends[index]]
        values = np.linalg.svd(part, compute_uv=False) ** 2
        largest[index] = values[0]
        smallest[index] = values[-1] if len(values) == columns else 0.0
    return largest, smallest


def _angle_of(basis: Basis, k: int, floors: bool) -> float:
    return basis.error(k) + (basis.noise(k) if floors else 0.0)


def _cosines(now: Basis, before: Basis) -> Values:
    """Cosines of all earlier left vectors, u = A v / s on a long side, with the leading ones."""
    complete = before.complete
    assert complete is not None
    if complete.is_left_short:
        return np.asarray(complete.vectors.T @ now.left)
    inverse = _inverse(before.values)
    finite = np.where(np.isfinite(inverse), inverse, 0.0)
    return np.asarray((complete.vectors.T @ (complete.wide @ now.left)) * finite[:, None])


def _all_clusters(before: Basis, cosines: Values, floors: bool) -> tuple[Clusters, Values]:
    """Clusters of all left vectors, and what is beyond them.

    Returns
    -------
    Clusters; and for each leading vector the squared length that may be outside all clusters, (K,).
    """
    complete, s = before.complete, before.values
    assert complete is not None
    floor = before.noise_floor if floors else 0.0
    inverse = _inverse(s)
    # The vectors are off by the bound divided by the gap of the squares, (s + s′)(s − s′) ≥ s (s −
    # s′).
    perturbations = complete.bound * inverse + floor
    gaps = before.lower - np.append(before.upper[1:], 0.0)
    angles = np.array([sine(p, gap) for p, gap in zip(perturbations, gaps, strict=True)])
    if complete.is_left_short:
        angles[-1] = 0.0  # together they span the whole side
    else:
        angles += complete.bound * inverse**2  # how far A v / s are from orthonormal
    found = Clusters.between(angles)
    end = int(found.ends[-1]) if len(found.ends) else 0
    rest = 1 - (cosines[:end] ** 2).sum(axis=0) + (angles[end - 1] if end else 0.0)
    is_all = complete.is_left_short and end == len(s)
    return found, np.zeros(cosines.shape[1]) if is_all else np.clip(rest, 0.0, 1.0)


def _inverse(s: Values) -> Values:
    with np.errstate(divide="ignore"):
        return np.where(s > 0, 1 / s, np.inf)
