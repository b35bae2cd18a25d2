"""What a Gaussian change would do, against changes that are drawn here."""

import numpy as np
import pytest

from rankscope.spectra.bases import basis_of
from rankscope.spectra.matrices import Dense
from rankscope.spectra.nulls import Nulls
from tests.spectra.rotations import Matrix, pair

SHAPE = (24, 24)


def nulls(before: Matrix, sigma: float, ks: tuple[int, ...] = (), key: int = 0) -> Nulls:
    basis = basis_of(Dense.stored(before), 10)
    assert basis is not None
    return Nulls(basis, sigma * np.sqrt(before.size), ks, ("w", key))


def drawn_intruders(before: Matrix, sigma: float) -> float:
    rng, (u, _, _) = np.random.default_rng(1), np.linalg.svd(before)
    found = []
    for _ in range(60):
        turned, _, _ = np.linalg.svd(before + sigma * rng.normal(size=before.shape))
        found.append((np.abs(u.T @ turned[:, :10]).max(axis=0) < 0.5).sum())
    return float(np.mean(found))


@pytest.mark.parametrize(("size", "fewest"), [(1, 0.0), (2, 0.0), (10, 0.5)])
def test_vectors_of_close_values_become_intruders_by_chance(
    rng: np.random.Generator, size: int, fewest: float
) -> None:
    """Though the gap below the leading ten is wide: within it, they mix."""
    s = np.linspace(3, 1, 24)
    s[:10] = 40 - 3 * (np.arange(10) // size)
    s[:10] -= 1e-6 * np.arange(10)
    before, _ = pair(rng, SHAPE, s, {}, {})
    truth = drawn_intruders(before, 0.01)
    found = np.mean([nulls(before, 0.01, key=key).intruders(10) for key in range(16)])
    assert truth >= fewest and abs(found - truth) <= 0.35 * truth


@pytest.mark.parametrize("side", ["left", "right"])
def test_large_changes_are_simulated(rng: np.random.Generator, side: str) -> None:
    before, _ = pair(rng, SHAPE, np.linspace(3, 1, 24), {}, {})
    sigma, k, drawn = 0.15, 4, []
    kept = np.linalg.svd(before)
    for _ in range(100):
        turned = np.linalg.svd(before + sigma * rng.normal(size=SHAPE))
        pairs = (kept[0], turned[0]) if side == "left" else (kept[2].T, turned[2].T)
        cosines = np.linalg.svd(pairs[0][:, :k].T @ pairs[1][:, :k], compute_uv=False)
        drawn.append(((cosines**2).mean(), cosines[-1]))
    truth, spread = np.mean(drawn, axis=0), np.std(drawn, axis=0)
    found = nulls(before, sigma, (k,))
    ours = found.overlap(side, k), found.least_cosine(side, k)  # type: ignore[arg-type]
    assert (np.abs(ours - truth) < 4 * spread / np.sqrt(4)).all()
    assert truth[0] < 0.9
