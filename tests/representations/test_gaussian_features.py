import numpy as np
import pytest

from rankscope import effective_rank, participation_ratio, stable_rank
from rankscope.representations.gaussian_features import gaussian_features
from rankscope.representations.power_law import power_law


@pytest.mark.parametrize(("d", "times"), [(32, 4), (32, 16), (64, 4)])
def test_formulas_agree_with_simulated_matrices(d: int, times: int) -> None:
    rng = np.random.default_rng(d + times)
    draws = []
    for _ in range(40):
        x = rng.normal(size=(times * d, d))
        eigenvalues = np.linalg.eigvalsh(x.T @ x)[::-1]
        s = np.sqrt(eigenvalues)
        alpha = power_law(eigenvalues, most=d).alpha
        draws.append([effective_rank(s), alpha, stable_rank(s), participation_ratio(s)])
    rank, alpha, stable, participation = np.mean(draws, axis=0)
    formula = gaussian_features(times * d, d)
    assert formula["rankme"] == pytest.approx(rank, rel=0.005)
    assert formula["per"] == pytest.approx(rank / d, rel=0.005)
    assert formula["alpha_req"] == pytest.approx(alpha, abs=0.04)
    assert formula["stable_rank"] == pytest.approx(stable, rel=0.03)
    assert formula["participation_ratio"] == pytest.approx(participation, rel=0.01)
