import numpy as np
import pytest

from rankscope.errors import WrongSettingError
from rankscope.representations.feature_sums import FeatureSums
from rankscope.representations.input_energy import (
    INPUT_ENERGY_COLUMNS,
    input_energy,
    share_bounds,
)
from tests.representations.made import Features, in_blocks, made, power


def weight(rows: int = 10, columns: int = 6, *, seed: int = 1) -> Features:
    return np.random.default_rng(seed).normal(size=(rows, columns))


@pytest.mark.parametrize("rows", [4, 10])
@pytest.mark.parametrize("centred", [False, True])
def test_every_number_is_that_of_its_definition(rows: int, centred: bool) -> None:
    x = made(power(6, 1), 200, mean=0.5)
    w = weight(rows)
    found = input_energy(w, in_blocks(x), k=3, centred=centred).row()
    if centred:
        x = x - x.mean(axis=0)
    _, s, right = np.linalg.svd(w)
    energy = (x**2).sum()
    assert found["energy_share"] == pytest.approx(((x @ right[:3].T) ** 2).sum() / energy)
    assert found["energy_passed"] == pytest.approx(((x @ w.T) ** 2).sum() / (s[0] ** 2 * energy))
    values = np.linalg.svd(x, compute_uv=False) ** 2
    assert found["energy_share_best"] == pytest.approx(values[:3].sum() / energy)
    assert found["energy_share_chance"] == 0.5
    assert set(found) == set(INPUT_ENERGY_COLUMNS)


def test_a_weight_that_looks_where_the_features_are_has_the_best_share() -> None:
    x = made(power(6, 2), 200)
    right = np.linalg.svd(x, full_matrices=False)[2]
    aligned = np.diag([6.0, 5, 4, 3, 2, 1]) @ right
    found = input_energy(aligned, in_blocks(x), k=2).row()
    assert found["energy_share"] == pytest.approx(found["energy_share_best"])
    away = input_energy(aligned[::-1] * [[0], [0], [0], [0], [1], [1]], in_blocks(x), k=2).row()
    assert away["energy_share"] == pytest.approx(found["energy_share"])
    worst = input_energy(np.diag([1.0, 2, 3, 4, 5, 6]) @ right, in_blocks(x), k=2).row()
    assert worst["energy_share"] < float(worst["energy_share_chance"]) < found["energy_share"]


def test_random_directions_have_the_share_of_chance() -> None:
    x = made(power(6, 1), 200)
    shares = [
        input_energy(weight(seed=i), in_blocks(x), k=2).numbers["energy_share"] for i in range(200)
    ]
    assert np.mean(shares) == pytest.approx(2 / 6, abs=0.03)


def test_ties_leave_the_share_open_between_the_worst_and_the_best_choice() -> None:
    moment = np.diag([5.0, 3, 1, 1])
    assert share_bounds(np.ones(4), np.eye(4), moment, k=1, error=1e-9) == pytest.approx((0.1, 0.5))
    one_sure = share_bounds(np.array([9, 1, 1, 0.5]), np.eye(4), moment, k=2, error=1e-9)
    assert one_sure == pytest.approx((0.6, 0.8))
    apart = np.array([4.0, 3, 2, 1])
    assert share_bounds(apart, np.eye(4), moment, k=2, error=0.4) == pytest.approx((0.8, 0.8))
    assert share_bounds(apart, np.eye(4), moment, k=2, error=0.6) == pytest.approx((0.6, 0.8))
    found = input_energy(np.eye(4), in_blocks(made(power(4, 2), 64, centred=False)), k=1).row()
    assert found["energy_share_low"] < 0.1 and found["energy_share_high"] > 0.6


def test_a_weight_of_lower_rank_than_k_may_have_any_direction_beyond() -> None:
    moment = np.diag([1.0, 1, 4, 4])
    s = np.array([2.0, 1, 0, 0])
    assert share_bounds(s, np.eye(4), moment, k=3, error=1e-9) == pytest.approx((0.6, 0.6))
    assert share_bounds(s, np.eye(4), moment, k=2, error=1e-9) == pytest.approx((0.2, 0.2))


def test_nor_does_a_weight_of_few_rows_determine_more_directions_than_its_rank() -> None:
    w = np.zeros((2, 4))
    w[0, 0] = 1
    x = np.diag([1.0, 1, 2, 2])  # energies 1, 1, 4, 4
    found = input_energy(w, [FeatureSums.of(x)] * 16, k=2).row()
    assert found["energy_share_low"] == pytest.approx(0.2)
    assert found["energy_share_high"] == pytest.approx(0.5)


def test_the_interval_contains_the_share_of_other_samples() -> None:
    rng = np.random.default_rng(3)
    w, inside, truth = weight(), 0, power(6, 1) ** 2
    right = np.linalg.svd(w)[2][:2]
    share = (right**2 @ truth).sum() / truth.sum()
    for _ in range(200):
        found = input_energy(w, in_blocks(rng.normal(size=(160, 6)) * power(6, 1)), k=2).numbers
        inside += found["energy_share_low"] <= share <= found["energy_share_high"]
    assert inside >= 0.9 * 200


def test_what_has_no_number_says_so() -> None:
    x = made(power(6, 1), 200)
    assert input_energy(0 * weight(), in_blocks(x), k=1).status == "zero"
    assert input_energy(weight(), in_blocks(0 * x), k=1).status == "zero"
    assert input_energy(weight() * np.nan, in_blocks(x), k=1).status == "nonfinite"
    few = input_energy(weight(), in_blocks(x[:20]), k=1)
    assert few.status == "too-few-tokens" and np.isnan(float(few.row()["energy_share_best"]))
    one = input_energy(weight(), [FeatureSums.of(x)], k=1)
    assert one.status == "one-block" and np.isfinite(one.numbers["energy_share"])
    assert np.isnan(one.numbers["energy_share_low"])


def test_wrong_sizes_are_refused() -> None:
    blocks = in_blocks(made(power(6, 1), 64))
    with pytest.raises(WrongSettingError, match=r"\(10, 5\) does not read features of 6"):
        input_energy(weight(10, 5), blocks, k=1)
    for k in (0, 7):
        with pytest.raises(WrongSettingError, match=f"`k` is {k}.*1 to 6 directions"):
            input_energy(weight(), blocks, k=k)
