from __future__ import annotations

import math

import numpy as np
import pytest

from rankscope.statistics.many_at_once import MOST, WHOLE, centres


@pytest.mark.parametrize("band", [WHOLE, MOST])
def test_all_groups_at_once_are_what_numpy_makes_of_each(
    rng: np.random.Generator, band: tuple[float, float]
) -> None:
    values, of = 10 ** rng.uniform(-3, 9, size=400), rng.integers(0, 60, size=400)
    values[rng.uniform(size=400) < 0.2] = np.nan
    mean, median = (centres(values, of, 61, log=log, band=band) for log in (False, True))
    for group in range(61):
        known = values[(of == group) & ~np.isnan(values)]
        assert mean.unknown[group] == np.isnan(values[of == group]).sum()
        if not known.size:
            assert math.isnan(mean.centre[group]) and math.isnan(median.low[group])
            continue
        low, middle, high = np.exp(np.quantile(np.log(known), [band[0], 0.5, band[1]]))
        found = (median.low[group], median.centre[group], median.high[group])
        assert found == pytest.approx((low, middle, high))
        assert mean.centre[group] == pytest.approx(known.mean())


def test_the_mean_of_equal_values_is_that_value_and_no_order_changes_a_bit(
    rng: np.random.Generator,
) -> None:
    assert centres(np.full(3, 0.1), np.zeros(3, np.intp), 1, log=False).centre.tolist() == [0.1]
    values, of = rng.normal(size=500), rng.integers(0, 5, size=500)
    order = rng.permutation(500)
    one, other = centres(values, of, 5, log=False), centres(values[order], of[order], 5, log=False)
    assert one.centre.tobytes() == other.centre.tobytes()


def test_a_group_without_values_is_known_to_have_none() -> None:
    found = centres(np.array([np.nan]), np.zeros(1, np.intp), 2, log=True)
    assert np.isnan(found.centre).all() and found.unknown.tolist() == [1, 0]
