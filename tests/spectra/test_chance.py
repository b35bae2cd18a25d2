import numpy as np
import pytest

from rankscope.spectra.chance import (
    deviation,
    first_order_overlap,
    gaussian_change,
    is_first_order,
    random_overlap,
    spectral_edge,
)
from tests.spectra.rotations import orthonormal, pair


@pytest.mark.parametrize(("k", "dimensions"), [(1, 8), (3, 20), (8, 32)])
def test_unrelated_subspaces_overlap_by_their_share(k: int, dimensions: int) -> None:
    rng = np.random.default_rng(k)
    drawn = [
        (orthonormal(rng, dimensions, k).T @ orthonormal(rng, dimensions, k)) ** 2
        for _ in range(400)
    ]
    mean, spread = np.mean(drawn, axis=0).sum() / k, np.std([one.sum() / k for one in drawn])
    assert abs(mean - random_overlap(k, dimensions)) < 4 * spread / 20


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.slow
def test_the_first_order_is_what_a_simulation_gives(
    shape: tuple[int, int], k: int, side: str
) -> None:
    rng = np.random.default_rng(5)
    s = np.concatenate([np.linspace(4, 3, k), np.linspace(2, 1, 16 - k)])
    before, _ = pair(rng, shape, s, {}, {})
    u, _, vt = np.linalg.svd(before)
    kept = u[:, :k] if side == "left" else vt[:k].T
    sigma = 0.02
    assert is_first_order(sigma, shape, 1.0)
    drawn = []
    for draw in range(300):
        u, _, vt = np.linalg.svd(before + gaussian_change(shape, sigma, draw))
        turned = u[:, :k] if side == "left" else vt[:k].T
        drawn.append(1 - ((kept.T @ turned) ** 2).sum() / k)
    lost = 1 - first_order_overlap(np.asarray(s), k, shape, side, sigma)  # type: ignore[arg-type]
    assert np.mean(drawn) == pytest.approx(lost, abs=4 * np.std(drawn) / 17 + 0.03 * lost)


def test_a_large_change_is_not_of_first_order() -> None:
    assert not is_first_order(0.5, (24, 24), 1.0)


def test_a_drawn_change_has_the_norm_and_depends_on_its_key_alone() -> None:
    shape = (60, 90)
    sigma = deviation(3.0, shape)
    drawn = gaussian_change(shape, sigma, "w", 7)
    assert np.linalg.norm(drawn) == pytest.approx(3.0, rel=0.05)
    assert np.linalg.norm(drawn, 2) == pytest.approx(spectral_edge(sigma, shape), rel=0.1)
    assert np.array_equal(drawn, gaussian_change(shape, sigma, "w", 7))
    assert not np.array_equal(drawn, gaussian_change(shape, sigma, "w", 8))
