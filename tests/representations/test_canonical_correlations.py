import numpy as np
import pytest
from scipy import linalg

from rankscope.representations.canonical_correlations import (
    Basis,
    chance_correlation,
    pwcca,
    svcca,
)
from rankscope.representations.probe_features import ProbeFeatures, similarity
from tests.representations.made import Features, made, power
from tests.spectra.gallery import rounded


def basis(x: Features, floor: float = 0.0) -> Basis:
    return Basis.of(x - x.mean(axis=0), noise_floor=floor)


def two(n: int = 200, *, seed: int = 0) -> tuple[Features, Features]:
    """Features of 6 and 9 dimensions with correlations of all sizes."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 6)), rng.normal(size=(n, 9))
    y[:, :6] += x * [4, 2, 1, 0.5, 0.2, 0]
    return x @ rng.normal(size=(6, 6)) + 3, y @ rng.normal(size=(9, 9)) - 2


def generalized(x: Features, y: Features) -> tuple[Features, Features]:
    """Canonical correlations and the variates of x, from C_xy C_yy⁻¹ C_yx v = ρ² C_xx v."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    cross = x.T @ y
    squares, vectors = linalg.eigh(cross @ np.linalg.solve(y.T @ y, cross.T), x.T @ x)
    return np.sqrt(squares[::-1]), x @ vectors[:, ::-1]


def leading(x: Features) -> Features:
    """Features projected on the principal directions that hold 99 % of their variance."""
    x = x - x.mean(axis=0)
    _, s, right = np.linalg.svd(x, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.99)) + 1
    return x @ right[:kept].T


def test_pwcca_is_the_definition_of_morcos() -> None:
    x, y = two()
    correlations, variates = generalized(x, y)
    weights = np.abs(variates.T @ (x - x.mean(axis=0))).sum(axis=1)
    expected = (weights * correlations).sum() / weights.sum()
    assert pwcca(basis(x), basis(y)) == pytest.approx(expected, rel=1e-9)
    assert pwcca(basis(y), basis(x)) == pytest.approx(expected, rel=1e-9)  # of the narrower side


def test_svcca_is_the_definition_of_raghu() -> None:
    x, y = two()
    x[:, 0] *= 20
    one, other = sorted((leading(x), leading(y)), key=lambda z: z.shape[1])
    assert svcca(basis(x), basis(y)) == pytest.approx(generalized(one, other)[0].mean(), rel=1e-9)
    assert basis(x).leading == leading(x).shape[1] < 6


def test_correlations_are_cosines_of_principal_angles() -> None:
    x, y = two()
    cosines = np.cos(linalg.subspace_angles(x - x.mean(axis=0), y - y.mean(axis=0)))
    np.testing.assert_allclose(np.sort(generalized(x, y)[0]), np.sort(cosines))


def unwhitened(x: Features, y: Features) -> float:
    """PWCCA as published code has it: its variates lack the whitening, and keep the mean."""

    def root(covariance: Features) -> Features:
        values, vectors = np.linalg.eigh(covariance)
        return vectors / np.sqrt(values) @ vectors.T

    n = len(x) - 1
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    turns, correlations, _ = np.linalg.svd(root(a.T @ a / n) @ (a.T @ b / n) @ root(b.T @ b / n))
    variates = np.linalg.qr(a @ turns + x.mean(axis=0))[0]
    weights = np.abs(variates.T @ x).sum(axis=1)
    return float(np.average(correlations, weights=weights))


def test_pwcca_equals_the_published_code_where_features_are_white_and_centred() -> None:
    x, y = two()
    white = np.linalg.qr(x - x.mean(axis=0))[0]
    assert pwcca(basis(white), basis(y)) == pytest.approx(unwhitened(white, y), rel=1e-9)
    assert abs(pwcca(basis(x), basis(y)) - unwhitened(x, y)) > 0.01  # elsewhere it does not


def test_any_linear_map_that_loses_nothing_leaves_the_correlations() -> None:
    x, y = two()
    mixed = y @ np.random.default_rng(1).normal(size=(9, 9))
    assert pwcca(basis(x), basis(mixed)) == pytest.approx(pwcca(basis(x), basis(y)), rel=1e-8)


def test_directions_below_the_noise_are_left_out_and_counted() -> None:
    """In bfloat16, six of ten directions are rounding, which is about the same twice over."""
    x = made(np.r_[np.ones(4), np.zeros(6)], 200, mean=3)
    stored = rounded(x, "bfloat16").values
    other = made(np.ones(4), 200, seed=5)
    blocks = np.arange(200) // 20
    row = similarity(
        ProbeFeatures.of(stored, blocks, bits=8), ProbeFeatures.of(other, blocks, bits=53)
    ).row()
    assert row["pwcca_kept_first"] == 4 and row["pwcca_kept_second"] == 4
    assert row["pwcca"] == pytest.approx(pwcca(basis(x, 1e-6), basis(other)), abs=0.02)


def test_without_directions_or_with_few_tokens_there_is_no_correlation() -> None:
    x, y = two(23)
    assert np.isnan(pwcca(basis(x, 1e9), basis(x)))
    assert np.isnan(pwcca(basis(x), basis(y)))
    assert np.isnan(chance_correlation(35, 6, 9)) and chance_correlation(36, 6, 9) > 0


@pytest.mark.parametrize(("n", "k", "others"), [(64, 8, 16), (128, 24, 24), (200, 1, 10)])
def test_chance_is_the_mean_over_independent_features(n: int, k: int, others: int) -> None:
    rng = np.random.default_rng(n)
    draws = [
        pwcca(basis(rng.normal(size=(n, k)) * power(k, 2)), basis(rng.normal(size=(n, others))))
        for _ in range(60)
    ]
    assert chance_correlation(n, k, others) == pytest.approx(np.mean(draws), rel=0.05)
