from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.errors import RankscopeError
from rankscope.training.adapters.energies import (
    averaged,
    core_singular_values,
    energy_rank,
    finite_float64,
    normalised_energies,
)
from rankscope.training.adapters.subspaces import overlap
from tests.training.adapters.prescribed import falling, matrix, orthonormal

SHAPES = [(8, 8), (12, 5), (5, 12), (1, 7), (30, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 9])
def test_the_core_has_the_singular_values_of_the_product(shape: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(shape[0], rank, dtype=torch.float64, generator=generator)
    right = torch.randn(rank, shape[1], dtype=torch.float64, generator=generator)
    values = core_singular_values(left, right)
    expected = torch.linalg.svdvals(left @ right)[: len(values)]
    assert len(values) == min(*shape, rank)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_prescribed_spectrum_of_a_delta_is_found_to_float64(rank: int) -> None:
    wanted = torch.tensor(falling(rank, 1e-3), dtype=torch.float64)
    left, right = orthonormal(20, rank, seed=0) * wanted, orthonormal(11, rank, seed=1).T
    values = core_singular_values(left, right)
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-15)


def test_a_new_adapter_has_a_delta_of_zero_singular_values() -> None:
    values = core_singular_values(torch.zeros(6, 2), torch.rand(2, 5))
    assert torch.equal(values, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_factors_that_are_not_finite_are_refused(bad: float) -> None:
    left = torch.ones(4, 2)
    left[1, 1] = bad
    with pytest.raises(RankscopeError, match=r"lora_B of shape \(4, 2\) holds NaN or infinity"):
        core_singular_values(left, torch.ones(2, 5))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_energy_rank_is_the_least_that_keeps_the_share(values: list[float], share: float) -> None:
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    k = energy_rank(spectrum, share)
    energy = spectrum.square()
    assert energy[:k].sum() >= share * energy.sum() * (1 - 1e-12)
    assert energy[: k - 1].sum() < share * energy.sum() * (1 + 1e-12)


def test_energy_rank_of_equal_values_is_their_share_rounded_up() -> None:
    assert [energy_rank(torch.ones(10), share) for share in (0.05, 0.1, 0.75, 1.0)] == [1, 1, 8, 10]


def test_the_energy_rank_of_zeros_is_zero() -> None:
    assert energy_rank(torch.zeros(4), 0.9) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_energies_are_squared_singular_values_of_sum_one(shape: tuple[int, int]) -> None:
    values = falling(min(shape), 0.5)
    energy = torch.tensor(values, dtype=torch.float64).square()
    found = normalised_energies(matrix(shape, values))
    torch.testing.assert_close(found, energy / energy.sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_zero_gradient_prefers_no_direction(shape: tuple[int, int]) -> None:
    n = min(shape)
    expected = torch.full((n,), 1 / n, dtype=torch.float64)
    assert torch.equal(normalised_energies(torch.zeros(shape)), expected)


@pytest.mark.parametrize("factor", [1e-44, 7.0, 1e30])
def test_energies_do_not_depend_on_the_size_of_a_gradient(factor: float) -> None:
    gradient = matrix((9, 6), falling(6, 0.6))
    torch.testing.assert_close(
        normalised_energies(factor * gradient), normalised_energies(gradient)
    )


def test_a_gradient_with_nan_is_refused() -> None:
    with pytest.raises(RankscopeError, match=r"a gradient of shape \(2, 3\) holds NaN"):
        normalised_energies(torch.full((2, 3), math.nan))


def test_averages_start_with_the_first_value_keep_the_sum_and_forget() -> None:
    first = normalised_energies(matrix((6, 6), falling(6, 0.9)))
    then = normalised_energies(matrix((6, 6), falling(6, 0.1)))
    average = averaged(None, first)
    assert torch.equal(average, first)
    for k in range(1, 20):
        average = averaged(average, then)
        assert average.sum() == pytest.approx(1)
        torch.testing.assert_close(average - then, 0.5**k * (first - then))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_parameter_may_be_given_as_it_is(dtype: torch.dtype) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2, dtype=dtype))
    found = finite_float64(parameter, "a parameter")
    assert (found.dtype, found.requires_grad) == (torch.float64, False)
    assert overlap(parameter, parameter) == pytest.approx(1.0)
