"""Energy of features in a weight's directions, against its definition and prescribed spectra."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from rankscope.errors import WrongSettingError
from rankscope.representations.feature_sums import FeatureSums, merged
from rankscope.representations.input_energy import (
    INPUT_ENERGY_COLUMNS,
    DirectedSums,
    InputEnergy,
    InputMoments,
    input_energy,
    share_bounds,
)
from rankscope.representations.weight_directions import WeightDirections
from tests.representations.made import Features, in_blocks, made, power


def weight(rows: int = 10, columns: int = 6, *, seed: int = 1) -> Features:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def directions(s: list[float], *, error: float, width: int = 4) -> WeightDirections:
    return WeightDirections(np.array(s), np.eye(width)[: len(s)], error)


def measured(w: Features, blocks: list[FeatureSums], k: int) -> InputEnergy:
    looks = WeightDirections.of(w)
    directed = [DirectedSums.of(one, looks) for one in blocks]
    return input_energy(looks, directed, inputs=InputMoments(merged(blocks)), k=k)


@pytest.mark.parametrize("rows", [4, 10])
@pytest.mark.parametrize("suffix", ["", "_centred"])
def test_every_number_is_that_of_its_definition(rows: int, suffix: str) -> None:
    x = made(power(6, 1), 200, mean=0.5)
    w = weight(rows)
    found = measured(w, in_blocks(x), k=3).row()
    if suffix:
        x = x - x.mean(axis=0)
    _, s, right = np.linalg.svd(w)
    energy = (x**2).sum()
    share, passed = ((x @ right[:3].T) ** 2).sum() / energy, ((x @ w.T) ** 2).sum() / energy
    assert found[f"energy_share{suffix}"] == pytest.approx(share)
    assert found[f"energy_passed{suffix}"] == pytest.approx(passed / s[0] ** 2)
    values = np.linalg.svd(x, compute_uv=False) ** 2
    assert found[f"energy_share_best{suffix}"] == pytest.approx(values[:3].sum() / energy)
    assert found[f"energy_share_chance{suffix}"] == 0.5
    assert set(found) == set(INPUT_ENERGY_COLUMNS)


def test_random_weights_have_the_share_of_chance_with_its_deviation() -> None:
    x = made(power(6, 1), 200)
    found = [measured(weight(seed=i), in_blocks(x), k=2).numbers for i in range(300)]
    for name, spread in (("share", True), ("passed", False)):
        values = np.array([one[f"energy_{name}"] for one in found])
        chance = np.mean([one[f"energy_{name}_chance"] for one in found])
        assert values.mean() == pytest.approx(chance, abs=0.02)
        if spread:
            deviation = found[0]["energy_share_chance_deviation"]
            assert values.std() == pytest.approx(deviation, rel=0.12)


def test_sums_of_parts_of_a_block_are_those_of_the_block() -> None:
    x = made(power(6, 1), 90, mean=1e3)
    looks = WeightDirections.of(weight(3))
    parts = [DirectedSums.of(FeatureSums.of(x[i : i + 20]), looks) for i in range(0, 90, 20)]
    joined = reduce(lambda a, b: a.plus(b, looks), parts)
    whole = DirectedSums.of(FeatureSums.of(x), looks)
    assert joined.count == 90
    assert joined.spread == pytest.approx(whole.spread)
    assert joined.along == pytest.approx(whole.along)
    assert joined.mean == pytest.approx(whole.mean)


def test_a_product_has_the_directions_of_its_matrix() -> None:
    left, right = weight(8, 2), weight(2, 6, seed=2)
    product, matrix = WeightDirections.of_product(left, right), WeightDirections.of(left @ right)
    assert product.values == pytest.approx(matrix.values[:2])
    cosines = product.right @ matrix.right[:2].T
    assert np.abs(cosines) == pytest.approx(np.eye(2), abs=1e-12)
    assert product.rank == product.holding(1.0) == matrix.rank == 2
    wide = WeightDirections.of_product(weight(8, 7), weight(7, 6, seed=2))
    assert len(wide.values) == 6


def test_as_many_directions_as_hold_a_share_of_the_energy() -> None:
    looks = directions([3.0, 2, 1, 1], error=0.0)  # energies 9, 4, 1, 1
    assert [looks.holding(share) for share in (0.5, 0.8, 0.9, 1.0)] == [1, 2, 3, 4]
    for nothing in (directions([0.0, 0.0], error=0.0), directions([2.0, 1.0], error=2.0)):
        assert [nothing.holding(share) for share in (0.5, 1.0)] == [0, 0]


def test_a_weight_that_looks_where_the_features_are_has_the_best_share() -> None:
    x = made(power(6, 2), 200)
    right = np.linalg.svd(x, full_matrices=False)[2]
    aligned = np.diag([6.0, 5, 4, 3, 2, 1]) @ right
    found = measured(aligned, in_blocks(x), k=2).row()
    assert found["energy_share"] == pytest.approx(found["energy_share_best"])
    worst = measured(np.diag([1.0, 2, 3, 4, 5, 6]) @ right, in_blocks(x), k=2).row()
    assert float(worst["energy_share"]) < 2 / 6 < float(found["energy_share"])


@pytest.mark.parametrize(
    ("values", "error", "k", "bounds"),
    [
        ([1.0, 1, 1, 1], 1e-9, 1, (0.1, 0.5)),
        ([9, 1, 1, 0.5], 1e-9, 2, (0.6, 0.8)),
        ([4.0, 3, 2, 1], 0.4, 2, (0.8, 0.8)),
        ([4.0, 3, 2, 1], 0.6, 2, (0.6, 0.8)),
        ([4.0, 3, 2], 0.1, 3, (0.9, 0.9)),  # of rank 3
        ([4.0, 3, 0.1], 0.1, 3, (0.9, 0.9)),  # the third may be any direction that is left
    ],
)
def test_ties_leave_the_share_open_between_the_worst_and_the_best_choice(
    values: list[float], error: float, k: int, bounds: tuple[float, float]
) -> None:
    moment = np.diag([5.0, 3, 1, 1])
    found = share_bounds(directions(values, error=error), moment, k=k)
    assert found == pytest.approx(bounds)


def test_the_interval_contains_every_choice_where_all_values_are_equal() -> None:
    found = measured(np.eye(4), in_blocks(made(power(4, 2), 64, centred=False)), k=1).numbers
    assert found["energy_share_low"] < 0.1 and found["energy_share_high"] > 0.6


def test_a_direction_that_may_be_zero_may_be_any() -> None:
    w = np.zeros((2, 4))
    w[0, 0] = 1
    x = np.diag([1.0, 1, 2, 2])  # energies 1, 1, 4, 4
    found = measured(w, [FeatureSums.of(x)] * 16, k=2).row()
    assert found["energy_share_low"] == pytest.approx(0.2)
    assert found["energy_share_high"] == pytest.approx(0.5)


def test_the_interval_contains_the_share_of_other_samples() -> None:
    rng = np.random.default_rng(3)
    w, inside, truth = weight(), 0, power(6, 1) ** 2
    right = np.linalg.svd(w)[2][:2]
    share = (right**2 @ truth).sum() / truth.sum()
    for _ in range(200):
        found = measured(w, in_blocks(rng.normal(size=(160, 6)) * power(6, 1)), k=2).numbers
        inside += found["energy_share_low"] <= share <= found["energy_share_high"]
    assert inside >= 0.9 * 200


def test_what_has_no_number_says_so() -> None:
    x = made(power(6, 1), 200)
    assert measured(0 * weight(), in_blocks(x), k=1).status == "zero"
    assert measured(weight(), in_blocks(x), k=0).status == "zero"
    assert measured(weight(), in_blocks(0 * x), k=1).status == "zero"
    one_nan = np.vstack([x, np.full((1, 6), np.nan)])
    assert measured(weight(), in_blocks(one_nan), k=1).status == "nonfinite"
    few = measured(weight(), in_blocks(x[:20]), k=1)
    assert few.status == "too-few-tokens" and np.isnan(float(few.row()["energy_share_best"]))
    one = measured(weight(), [FeatureSums.of(x)], k=1)
    assert one.status == "one-block" and np.isfinite(one.numbers["energy_share"])
    assert np.isnan(one.numbers["energy_share_low"])
    same = measured(weight(), in_blocks(np.ones((64, 6))), k=1).numbers
    assert "energy_share" in same and "energy_share_centred" not in same


def test_wrong_sizes_are_refused() -> None:
    blocks = in_blocks(made(power(6, 1), 64))
    with pytest.raises(WrongSettingError, match="reads 5 dimensions does not read features of 6"):
        measured(weight(10, 5), blocks, k=1)
    for k in (-1, 7):
        with pytest.raises(WrongSettingError, match=f"`k` is {k}; the weight has 6 directions"):
            measured(weight(), blocks, k=k)
    with pytest.raises(WrongSettingError, match=r"shape \(3,\); expected \(m, d\)"):
        WeightDirections.of(np.ones(3))
