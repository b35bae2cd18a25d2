import numpy as np
import pytest
from mpmath import mp
from scipy.linalg import subspace_angles

from rankscope.spectra.chance import (
    deviation,
    first_order_least_cosines,
    first_order_overlap,
    gaussian_change,
    is_first_order,
    random_least_cosine,
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


def exact_least_cosine(k: int, dimensions: int) -> float:
    """By the law of Absil, Edelman and Koev, whose matrix argument reduces to a number here.

    P(θ < φ) ∝ sin^{kr}(φ)·₂F₁(r/2, k/2; (d + 1)/2; sin²φ), r = d − k; integrated for E cos θ.
    """
    k, r = sorted((k, dimensions - k))
    size = mp.mpf(k * r)
    front = mp.gamma(mp.mpf(k + 1) / 2) * mp.gamma(mp.mpf(r + 1) / 2)
    front /= mp.sqrt(mp.pi) * mp.gamma(mp.mpf(dimensions + 1) / 2)
    above = mp.mpf(r - 1) / 2, mp.mpf(k - 1) / 2, size / 2
    return float(front * mp.hyp3f2(*above, mp.mpf(dimensions + 1) / 2, size / 2 + 1, 1))


@pytest.mark.parametrize(
    ("k", "dimensions"),
    [(1, 2), (1, 3), (2, 3), (1, 768), (2, 4), (3, 7), (4, 20), (16, 64), (60, 64)],
)
def test_the_least_cosine_of_unrelated_subspaces_is_that_of_the_exact_law(
    k: int, dimensions: int
) -> None:
    exact = exact_least_cosine(k, dimensions)
    found = random_least_cosine(k, dimensions)
    is_line = min(k, dimensions - k) == 1
    assert found == pytest.approx(exact, rel=1e-12 if is_line else 0.006)
    assert random_least_cosine(k, k) == 1


@pytest.mark.parametrize(("k", "dimensions"), [(3, 8), (4, 20)])
def test_and_what_a_simulation_gives(k: int, dimensions: int) -> None:
    rng = np.random.default_rng(k)
    drawn = [
        np.cos(subspace_angles(*(orthonormal(rng, dimensions, k) for _ in range(2))))[0]
        for _ in range(600)
    ]
    assert abs(np.mean(drawn) - exact_least_cosine(k, dimensions)) < 4 * np.std(drawn) / 24


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (16, 18)])
@pytest.mark.parametrize("gap", [1.0, 0.3])
@pytest.mark.slow
def test_the_least_cosine_of_first_order_is_what_a_simulation_gives(
    shape: tuple[int, int], gap: float
) -> None:
    rng, sigma, ks = np.random.default_rng(5), 0.02 * gap, (1, 4)
    s = np.concatenate([[4.0 + gap], np.linspace(4, 3.8, 3), np.linspace(3.8 - gap, 1, 12)])
    before, _ = pair(rng, shape, s, {}, {})
    first = np.linalg.svd(before)
    assert all(is_first_order(sigma, shape, s[k - 1] - s[k]) for k in ks)
    simulated: dict[tuple[str, int], list[float]] = {}
    for _ in range(120):
        turned = np.linalg.svd(before + sigma * rng.normal(size=shape))
        for k in ks:
            left = first[0][:, :k], turned[0][:, :k]
            right = first[2][:k].T, turned[2][:k].T
            for side, sides in (("left", left), ("right", right)):
                lost = 1 - np.cos(subspace_angles(*sides)).min()
                simulated.setdefault((side, k), []).append(float(lost))
    many = [first_order_least_cosines(s, ks, shape, sigma, draw) for draw in range(50)]
    for key, losses in simulated.items():
        ours = 1 - np.mean([one[key] for one in many])  # type: ignore[index]
        spread = np.std(losses) * np.sqrt(1 / 120 + 1 / 200)
        assert abs(ours - np.mean(losses)) < 4 * spread + 0.03 * ours


def test_what_is_drawn_of_first_order_depends_on_its_key_alone() -> None:
    s = np.linspace(3, 1, 16)
    one, again, other = (
        first_order_least_cosines(s, (1, 4), (16, 40), 0.001, "w", key) for key in (1, 1, 2)
    )
    assert one == again != other
    assert first_order_least_cosines(s, (), (16, 40), 0.001) == {}
