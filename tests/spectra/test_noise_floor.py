"""The law of the noise floor: what rounding made is never counted as rank."""

import numpy as np
import pytest

from rankscope.results.measure import measure
from rankscope.spectra.matrices import Dense
from rankscope.spectra.rounding import MARGIN
from rankscope.spectra.singular_values import spectrum
from tests.spectra.gallery import rounded
from tests.spectra.stored_updates import DISTRIBUTIONS, FORMATS, floor_ratio, iter_updates, update

Shape = tuple[int, int]
SQUARE_TO_LONG = [(32, 32), (32, 64), (256, 32), (64, 256), (96, 96)]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", SQUARE_TO_LONG)
def test_the_floor_is_above_the_error_that_rounding_made(
    dtype: str, name: str, shape: Shape, rng: np.random.Generator
) -> None:
    ratio = floor_ratio(DISTRIBUTIONS[name](rng, shape), dtype)
    assert ratio >= 1
    # One entry that towers above all others makes row and column edge of itself alone: then the
    # floor is 2·MARGIN·ulp/√12, and the error may by luck be much smaller.
    assert ratio <= (20 if name in ("Student t, 2 dof", "lognormal") else 2 * MARGIN)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(512, 512), (64, 512), (384, 192)])
def test_the_floor_is_above_the_error_in_large_matrices(
    dtype: str, shape: Shape, rng: np.random.Generator
) -> None:
    for make in DISTRIBUTIONS.values():
        for _ in range(3):
            assert floor_ratio(make(rng, shape), dtype) >= 1


@pytest.mark.parametrize("dtype", FORMATS)
def test_an_update_has_its_rank_or_less(dtype: str) -> None:
    for true, _, one in iter_updates(is_single=False, formats=(dtype,), shapes=[(32, 64)]):
        assert one.coverage >= 1
        assert one.rank <= true


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(64, 64), (32, 256), (128, 96)])
def test_an_update_of_any_shape_has_its_rank_or_less(dtype: str, shape: Shape) -> None:
    for true, _, one in iter_updates(is_single=False, formats=(dtype,), shapes=[shape]):
        assert one.rank <= true


@pytest.mark.parametrize(("dtype", "size"), [("float32", 1e-3), ("float16", 0.1), ("bfloat16", 1)])
@pytest.mark.parametrize("merges", [1, 2, 4])
def test_an_update_well_above_the_floor_has_exactly_its_rank(
    dtype: str, size: float, merges: int, rng: np.random.Generator
) -> None:
    weight = rng.normal(size=(64, 96))
    one = update(rng, weight, dtype, rank=8, size=size, merges=merges)
    assert one.rank == 8 * merges


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_weight_that_did_not_change_has_no_rank(dtype: str, rng: np.random.Generator) -> None:
    one = update(rng, rng.normal(size=(24, 40)), dtype, rank=2, size=0.0)
    assert spectrum(Dense(one.later - one.earlier, dtype, one.rounding)).status == "zero"


def test_an_update_far_below_one_ulp_has_no_rank(
    rng: np.random.Generator,
) -> None:
    one = update(rng, rng.normal(size=(64, 64)), "bfloat16", rank=4, size=3e-4)
    row = measure(spectrum(Dense(one.later - one.earlier, "bfloat16", one.rounding)))
    assert row["numerical_rank"] == 0
    assert row["condition_number_status"] == "lower-bound" and row["condition_number"] == 1
    assert row["condition_number_r"] is None and row["condition_number_90"] is None
    assert row["noise_share"] == 1


@pytest.mark.parametrize("rank", [2, 4])
def test_the_floor_covers_float32_merges_of_small_products(
    rank: int, rng: np.random.Generator
) -> None:
    for size in (1.0, 0.1):
        one = update(
            rng, rng.normal(size=(64, 128)), "float32", rank=rank, size=size, is_single=True
        )
        assert one.coverage >= 1 and one.rank == rank


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_same_product_has_one_condition_number_in_every_format(
    dtype: str, rng: np.random.Generator
) -> None:
    product = rng.normal(size=(48, 8)) @ rng.normal(size=(8, 96))
    s = np.linalg.svd(product, compute_uv=False)
    row = measure(spectrum(rounded(product, dtype).dense()))
    assert row["numerical_rank"] == 8
    assert row["condition_number_r"] == pytest.approx(s[0] / s[7], rel=0.01)
    assert row["condition_number_status"] == "lower-bound"
    assert row["noise_source"] == "storage"
