import numpy as np
import pytest

from rankscope.representations.power_law import FIRST, LEAST, power_law, slope_weights


@pytest.mark.parametrize("exponent", [0.3, 1.0, 2.5])
def test_a_power_law_has_its_exponent(exponent: float) -> None:
    fit = power_law(7.0 * np.arange(1, 200) ** -exponent, most=199)
    assert fit.alpha == pytest.approx(exponent)
    assert fit.error < 1e-12 and fit.r2 == pytest.approx(1)
    assert (fit.first, fit.last) == (12, 100)


def test_the_fit_is_that_of_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    eigenvalues = np.sort(rng.pareto(2, size=150))[::-1]
    fit = power_law(eigenvalues, most=150)
    i = np.arange(12, 101)
    # polyfit multiplies residuals, so that it takes the roots of the weights.
    line, covariance = np.polyfit(np.log(i), np.log(eigenvalues[11:100]), 1, w=i**-0.5, cov=True)
    assert fit.alpha == pytest.approx(-line[0])
    assert fit.error == pytest.approx(np.sqrt(covariance[0, 0]))
    residuals = np.log(eigenvalues[11:100]) - np.polyval(line, np.log(i))
    y = np.log(eigenvalues[11:100])
    total = ((y - np.average(y, weights=1 / i)) ** 2 / i).sum()
    assert fit.r2 == pytest.approx(1 - (residuals**2 / i).sum() / total)
    assert -slope_weights(12, 100) @ y == pytest.approx(fit.alpha)


def test_no_value_past_those_above_the_noise_is_used() -> None:
    eigenvalues = np.r_[np.arange(1.0, 41) ** -1.0, np.zeros(60)]
    fit = power_law(eigenvalues, most=40)
    assert fit.last == 40 and fit.alpha == pytest.approx(1)


def test_too_few_values_give_no_exponent() -> None:
    enough = FIRST + LEAST - 1
    eigenvalues = np.arange(1.0, 101) ** -1.0
    assert np.isfinite(power_law(eigenvalues, most=enough).alpha)
    assert np.isnan(power_law(eigenvalues, most=enough - 1).alpha)


def test_flat_values_decay_with_exponent_zero() -> None:
    fit = power_law(np.ones(50), most=50)
    assert fit.alpha == pytest.approx(0, abs=1e-12) and np.isnan(fit.r2)
