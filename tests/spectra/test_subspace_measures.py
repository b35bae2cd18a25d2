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
