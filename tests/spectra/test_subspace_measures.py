import math
from dataclasses import replace

import numpy as np
import pytest
from mpmath import mp

from rankscope.spectra.bases import basis_of
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.subspace_measures import (
    Change,
    Measure,
    compare_products,
    compare_weights,
    sizes,
)
from tests.spectra.rotations import Matrix, orthonormal, overlap_of, pair

SHAPES = [(24, 24), (16, 40), (40, 16)]
LEFT = {(0, 5): 0.3, (2, 9): 1.2, (3, 4): 0.7}
RIGHT = {(1, 6): 0.2, (2, 3): 1.0, (0, 12): np.pi / 2}


def compared(now: Matrix, before: Matrix, most: int, *, stored: str = "float64") -> list[Measure]:
    dtype = np.dtype(stored)
    later, earlier = Dense.stored(now.astype(dtype)), Dense.stored(before.astype(dtype))
    bases = basis_of(later, most), basis_of(earlier, most)
    assert bases[0] is not None and bases[1] is not None
    change = Change.between(later, earlier)
    return list(compare_weights(*bases, change, sizes(most), ("w", 1)))


def of(found: list[Measure], measure: str) -> dict[tuple[str, int], Measure]:
    return {(one.side, one.k): one for one in found if one.measure == measure}


def test_sizes_grow_by_four_and_hold_the_ranks_that_are_asked_for() -> None:
    assert sizes(64) == (1, 4, 16, 64)
    assert sizes(20, 8, 99) == (1, 4, 8, 16, 20)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stored", ["float64", "float32"])
def test_overlaps_are_those_of_the_prescribed_rotations(
    rng: np.random.Generator, shape: tuple[int, int], stored: str
) -> None:
    s = 2.0 ** -np.arange(16) * np.linspace(1.5, 1, 16)
    before, now = pair(rng, shape, s, LEFT, RIGHT)
    overlaps = of(compared(now, before, 8, stored=stored), "overlap")
    for (side, k), one in overlaps.items():
        truth = overlap_of(LEFT if side == "left" else RIGHT, k)
        assert one.status == "ok" and one.error is not None and one.noise is not None
        assert abs(one.value - truth) <= one.error + one.noise
        assert one.error < 1e-9 and one.noise < (1e-3 if stored == "float32" else 1e-11)
    assert {k for _, k in overlaps} == {1, 4, 8}


@pytest.mark.parametrize("k", [1, 4])
def test_there_is_no_overlap_where_the_gap_is_rounding(rng: np.random.Generator, k: int) -> None:
    s = np.linspace(2, 1, 16)
    s[k] = s[k - 1] * (1 - 2.0**-26)
    before, now = pair(rng, (24, 24), s, LEFT, RIGHT)
    one = of(compared(now, before, 8, stored="float32"), "overlap")["left", k]
    assert (one.status, one.value, one.error) == ("no-gap", None, None)
    assert of(compared(now, before, 8), "overlap")["left", k].status == "ok"


def exact_overlap(now: Matrix, before: Matrix, k: int) -> float:
    with mp.workdps(50):
        u = [mp.svd_r(mp.matrix(one.tolist()))[0] for one in (now, before)]
        cross = u[0][:, :k].T * u[1][:, :k]
        return float(sum(cross[i, j] ** 2 for i in range(k) for j in range(k)) / k)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.slow
def test_the_true_overlap_is_within_the_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = [(7, 7), (5, 9), (9, 5)][seed % 3]
    gap = 10.0 ** -rng.integers(0, 7)
    s = np.sort(rng.uniform(1, 1 + gap, 5))[::-1]
    before, _ = pair(rng, shape, s, {}, {})
    before = before.astype(np.float32).astype(np.float64)
    now = (before + gap * rng.normal(size=shape)).astype(np.float32).astype(np.float64)
    for (side, k), one in of(compared(now, before, 4), "overlap").items():
        if side == "left" and one.status == "ok":
            assert one.value is not None and one.error is not None
            assert abs(one.value - exact_overlap(now, before, k)) <= one.error


@pytest.mark.parametrize("shape", SHAPES)
def test_update_energy_is_the_share_of_the_change_in_the_subspace(
    rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    before, _ = pair(rng, shape, np.linspace(3, 1, 16), {}, {})
    change = 0.01 * rng.normal(size=shape)
    u, _, vt = np.linalg.svd(before)
    for (side, k), one in of(compared(before + change, before, 8), "update_energy").items():
        inside = u[:, :k].T @ change if side == "left" else change @ vt[:k].T
        truth = (inside**2).sum() / (change**2).sum()
        assert abs(one.value - truth) <= one.error + one.noise < 1e-9
        assert one.null == k / (shape[0] if side == "left" else shape[1])


def test_what_did_not_change_has_no_energy_and_a_full_overlap(rng: np.random.Generator) -> None:
    before, _ = pair(rng, (24, 24), np.linspace(3, 1, 16), {}, {})
    found = compared(before, before, 4)
    assert {one.status for one in found if one.measure == "update_energy"} == {"zero"}
    for one in of(found, "overlap").values():
        assert one.value == pytest.approx(1, abs=1e-12) and one.null == 1


@pytest.mark.parametrize("inner", [3, 30])
def test_products_are_compared_from_their_factors(rng: np.random.Generator, inner: int) -> None:
    left, right = rng.normal(size=(24, inner)), rng.normal(size=(inner, 32))
    new = LowRank(rng.normal(size=(24, inner)), rng.normal(size=(inner, 32)))
    bases = basis_of(new, 3), basis_of(LowRank(left, right), 3)
    assert bases[0] is not None and bases[1] is not None
    u = [np.linalg.svd(one)[0][:, :3] for one in (new.multiplied(), left @ right)]
    truth = ((u[0].T @ u[1]) ** 2).sum() / 3
    one = of(list(compare_products(*bases, (1, 3))), "overlap")["left", 3]
    assert one.value == pytest.approx(truth, abs=1e-9)
    assert one.null == 3 / 24


def test_a_random_change_turns_single_vectors_and_leaves_the_subspace(
    rng: np.random.Generator,
) -> None:
    n = 384
    spikes = orthonormal(rng, n, 64) * (6 * np.arange(1, 65) ** -0.5) @ orthonormal(rng, n, 64).T
    before = rng.normal(size=(n, n)) / np.sqrt(n) + spikes
    change = rng.normal(size=(n, n))
    change *= 0.03 * np.linalg.norm(before) / np.linalg.norm(change)
    u, s, _ = np.linalg.svd(before)
    turned, moved, _ = np.linalg.svd(before + change)
    assert np.abs((u * turned).sum(axis=0)).mean() < 0.8
    assert np.median(np.abs(moved / s - 1)) < 0.004
    found = compared(before + change, before, 16)
    one = of(found, "overlap")["left", 16]
    assert one.value is not None and one.null is not None
    assert one.value > 0.998 and abs(one.value - one.null) < 2e-4
    assert of(found, "intruders")["left", 10].value == 0


@pytest.mark.parametrize("exponent", [-1030, -660, 530, 1000])
@pytest.mark.parametrize("shape", [*SHAPES, (5, 1), (1, 5)])
def test_a_power_of_two_changes_nothing(
    rng: np.random.Generator, shape: tuple[int, int], exponent: int
) -> None:
    before = rng.normal(size=shape)
    before[0] *= 5
    before = np.round(before, 2)
    now = before + np.round(0.1 * rng.normal(size=shape), 2)
    if exponent < -1000:  # where numbers are subnormal, those of few bits are still exact
        before, now = (np.round(one * 64) / 64 for one in (before, now))
    scaled = compared(np.ldexp(now, exponent), np.ldexp(before, exponent), 4)
    found = compared(now, before, 4)
    assert len(scaled) == len(found) > 0
    for one, other in zip(scaled, found, strict=True):
        assert (one.measure, one.side, one.k, one.status) == (
            *(other.measure, other.side, other.k, other.status),
        )
        assert one.value == pytest.approx(other.value, rel=1e-9)
        assert one.null == pytest.approx(other.null, rel=1e-9)


@pytest.mark.parametrize("scales", [(1e160, 1e100), (1e160, 1e-160), (1e-200, 1e-200)])
def test_factors_may_be_of_any_size(rng: np.random.Generator, scales: tuple[float, float]) -> None:
    pairs = [(rng.normal(size=(24, 3)), rng.normal(size=(3, 32))) for _ in range(2)]
    found = []
    for left_scale, right_scale in (scales, (1.0, 1.0)):
        bases = [basis_of(LowRank(a * left_scale, b * right_scale), 3) for a, b in pairs]
        assert bases[0] is not None and bases[1] is not None
        found.append([one.value for one in compare_products(bases[0], bases[1], (1, 3))])
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("inner", [3, 30])
def test_rounding_of_the_factors_counts_whatever_their_inner_dimension(
    rng: np.random.Generator, inner: int
) -> None:
    left, right = rng.normal(size=(24, inner)), rng.normal(size=(inner, 32))
    basis = basis_of(LowRank(left, right, "bfloat16", floor=0.5, error=0.25), 3)
    assert basis is not None
    assert math.ldexp(basis.noise_floor, basis.exponent) == 0.5
    assert (np.ldexp(basis.residuals, basis.exponent) >= 0.25).all()


@pytest.mark.parametrize("values", [np.zeros((4, 6)), np.full((4, 6), np.nan), np.empty((0, 6))])
def test_what_has_no_singular_vectors_has_no_basis(values: Matrix) -> None:
    assert basis_of(Dense(values, "float64", Dense.stored(np.ones((4, 6))).rounding), 3) is None


def test_what_forming_the_weights_rounded_is_in_the_error_of_the_energy(
    rng: np.random.Generator,
) -> None:
    before, _ = pair(rng, (24, 24), np.linspace(3, 1, 16), {}, {})
    now = before + 1e-6 * rng.normal(size=before.shape)
    formed = [replace(Dense.stored(one), error=1e-9) for one in (now, before)]
    bases = [basis_of(one, 4) for one in formed]
    assert bases[0] is not None and bases[1] is not None
    found = list(compare_weights(*bases, Change.between(*formed), (4,), ("w",)))
    energy = of(found, "update_energy")["left", 4]
    exact = of(compared(now, before, 4), "update_energy")["left", 4]
    assert exact.error is not None and energy.error is not None
    assert exact.error < 1e-9 and energy.error > 2e-9 / 3e-5
