"""A gallery of pairs of matrices with prescribed rotations, and truths from other programs.

The singular subspaces are those of LAPACK's SVD (never of a Gram matrix), the angles those of
scipy; where values are close, both are of mpmath with 40 digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from mpmath import mp
from scipy.linalg import subspace_angles

import rankscope as rs
from rankscope.spectra.paired_subspaces import subspace_measures
from rankscope.spectra.subspace_measures import Measure
from tests.spectra.rotations import Matrix, orthonormal, overlap_of, pair

PLANES = {(0, 9): 0.3, (2, 8): 1.1, (3, 4): 1.5}  # scipy's right angles are off by 1e-8
KS = (1, 4, 6)


@dataclass(frozen=True)
class Pair:
    """Two matrices; the second is turned by the angles in these planes."""

    before: Matrix
    now: Matrix
    left: dict[tuple[int, int], float]
    right: dict[tuple[int, int], float]


def planted(shape: tuple[int, int], s: Matrix) -> Pair:
    rng = np.random.default_rng(len(s))
    left, right = PLANES, {(1, 7): 0.8}
    return Pair(*pair(rng, shape, s, left, right), left, right)


def scaled_apart(shape: tuple[int, int]) -> Pair:
    """The later matrix is a million times as large: angles do not depend on it."""
    one = planted(shape, np.linspace(12, 1, 12))
    return Pair(one.before, 1e6 * one.now, one.left, one.right)


EVEN = np.linspace(12.0, 1.0, 12)
GALLERY: dict[str, Callable[[], Pair]] = {
    "square": lambda: planted((12, 12), EVEN),
    "wide": lambda: planted((12, 30), EVEN),
    "tall": lambda: planted((30, 12), EVEN),
    "rank-deficient": lambda: planted((24, 30), EVEN),
    "graded": lambda: planted((20, 24), 4.0 ** -np.arange(12)),
    "rank as large as the subspace": lambda: planted((24, 20), np.append(EVEN[:10], [1e-3, 1e-3])),
    "scales apart": lambda: scaled_apart((12, 30)),
}


def stored(values: Matrix, dtype: str) -> rs.Dense:
    if dtype != "bfloat16":
        return rs.Dense.stored(values.astype(dtype))
    bits = values.astype(np.float32).view(np.uint32)
    bits = bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000
    return rs.Dense.stored(bits.view(np.float32), "bfloat16")


def table(now: rs.Dense, before: rs.Dense) -> dict[tuple[str, str, int], Measure]:
    found = [one for k in KS for one in subspace_measures(now, before, k=k)]
    return {(one.measure, one.side, one.k): one for one in found}


def leading(values: Matrix, side: str, k: int) -> Matrix:
    u, _, vt = np.linalg.svd(values.astype(np.float64))
    return np.asarray((u if side == "left" else vt.T)[:, :k])


@pytest.mark.parametrize("name", GALLERY)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_cosines_and_overlaps_are_those_of_scipy(name: str, dtype: str) -> None:
    one = GALLERY[name]()
    now, before = stored(one.now, dtype), stored(one.before, dtype)
    found = table(now, before)
    assert {status.status for status in found.values()} == {"ok"}
    for side in ("left", "right"):
        for k in KS:
            pairs = (leading(values.values, side, k) for values in (now, before))
            cosines = np.cos(subspace_angles(*pairs))
            for measure, truth in (
                ("least_cosine", cosines.min()),
                ("overlap", (cosines**2).mean()),
            ):
                ours = found[measure, side, k]
                assert ours.value is not None and ours.error is not None
                assert abs(ours.value - truth) <= ours.error + 1e-12
                assert ours.error < 1e-8


@pytest.mark.parametrize("name", GALLERY)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_planted_is_within_what_storage_rounded(name: str, dtype: str) -> None:
    one = GALLERY[name]()
    found = table(stored(one.now, dtype), stored(one.before, dtype))
    numbers = 0
    for (measure, side, k), ours in found.items():
        if ours.status != "ok" or ours.noise is None or measure not in ("overlap", "least_cosine"):
            continue
        assert ours.value is not None and ours.error is not None
        planes = one.left if side == "left" else one.right
        cosine = min((np.cos(a) for (i, j), a in planes.items() if i < k <= j), default=1.0)
        truth = overlap_of(planes, k) if measure == "overlap" else cosine
        assert abs(ours.value - truth) <= ours.error + ours.noise
        numbers += 1
    assert numbers >= 8


@pytest.mark.parametrize("exponent", [2, 5, 8, 11])
@pytest.mark.parametrize("shape", [(6, 6), (5, 8), (8, 5)])
@pytest.mark.slow
def test_where_values_are_close_the_truth_is_within_the_error(
    shape: tuple[int, int], exponent: int
) -> None:
    """Gaps down to 1e-11 of the values, where float64 knows a few digits of the angles."""
    rng = np.random.default_rng(exponent)
    gap = 10.0**-exponent
    s = 1 + gap * np.array([3.0, 2.0, 1.2, 0.7, 0.0])
    before, _ = pair(rng, shape, s, {}, {})
    now = before + gap * rng.normal(size=shape) / 4
    found = {(one.measure, one.side): one for one in subspace_measures(now, before, k=2)}
    with mp.workdps(40):
        ours = [mp.svd_r(mp.matrix(one.tolist())) for one in (now, before)]
        for side in ("left", "right"):
            u, w = ((u[:, :2] if side == "left" else vt.T[:, :2]) for u, _, vt in ours)
            cosines = [float(c) for c in mp.svd_r(u.T * w, compute_uv=False)]
            for measure, truth in (
                ("least_cosine", min(cosines)),
                ("overlap", sum(c**2 for c in cosines) / 2),
            ):
                one = found[measure, side]
                assert one.status == ("ok" if exponent < 11 else one.status)
                if one.value is not None and one.error is not None:
                    assert abs(one.value - truth) <= one.error


@pytest.mark.parametrize("is_close_first", [True, False])
def test_the_error_is_that_of_both_matrices(is_close_first: bool) -> None:
    """One has its values close together, the other, with the same vectors, far apart."""
    rng = np.random.default_rng(7)
    u, v = orthonormal(rng, 6, 5), orthonormal(rng, 8, 5)
    close = u * (1 + 1e-9 * np.array([3.0, 2, 1, 0, -1])) @ v.T
    pairs = [close, u * np.array([5.0, 4, 3, 2, 1]) @ v.T]
    now, before = pairs if is_close_first else pairs[::-1]
    found = {(one.measure, one.side): one for one in subspace_measures(now, before, k=2)}
    with mp.workdps(40):
        left = [mp.svd_r(mp.matrix(one.tolist()))[0][:, :2] for one in (now, before)]
        truth = float(min(mp.svd_r(left[0].T * left[1], compute_uv=False)))
    ours, far = found["least_cosine", "left"], subspace_measures(*[pairs[1]] * 2, k=2)[0]
    assert ours.value is not None and ours.error is not None and far.error is not None
    assert abs(ours.value - truth) <= ours.error and ours.error > 1e3 * far.error


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_update_has_the_planted_share_of_its_energy_in_the_subspace(
    rng: np.random.Generator, share: float, side: str, dtype: str
) -> None:
    u, v = orthonormal(rng, 20, 20), orthonormal(rng, 24, 20)
    s = np.append(np.linspace(9, 6, 4), np.linspace(2, 1, 16))
    inside = np.outer(u[:, 1], v[:, 9]) if side == "left" else np.outer(u[:, 9], v[:, 1])
    update = np.sqrt(share) * inside + np.sqrt(1 - share) * np.outer(u[:, 12], v[:, 14])
    before = u * s @ v.T
    one = table(stored(before + update / 8, dtype), stored(before, dtype))["update_energy", side, 4]
    assert one.value is not None and one.error is not None and one.noise is not None
    assert abs(one.value - share) <= one.error + one.noise < (1e-12 if dtype == "float64" else 1e-4)
    assert one.null == 4 / (20 if side == "left" else 24)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cluster_that_storage_cannot_separate_has_no_number(dtype: str) -> None:
    s = EVEN.copy()
    s[3:5] = 9 * (1 + np.array([2.0**-9, 0]) * (1 if dtype == "bfloat16" else 2.0**-16))
    one = planted((12, 30), s)
    found = table(stored(one.now, dtype), stored(one.before, dtype))
    assert {status.status for (_, _, k), status in found.items() if k == 4} == {"no-gap"}
    assert found["overlap", "left", 1].status == "ok"


@pytest.mark.parametrize("planted_intruders", [0, 1, 2])
@pytest.mark.parametrize("shape", [(32, 32), (24, 48), (48, 24)])
@pytest.mark.slow
def test_intruders_are_those_that_peft_removes(
    rng: np.random.Generator, planted_intruders: int, shape: tuple[int, int]
) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    intruders = pytest.importorskip("peft.tuners.lora.intruders")
    before, _ = pair(rng, shape, np.linspace(3, 1, 24), {}, {})
    model = torch.nn.Sequential(torch.nn.Linear(shape[1], shape[0], bias=False))
    model[0].weight.data = torch.from_numpy(before).float()
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, lora_alpha=2, target_modules=["0"], init_lora_weights=False)
    )
    layer = adapted.base_model.model[0]
    u, _, vt = np.linalg.svd(before)
    b = np.stack([even(u, index) if index < planted_intruders else u[:, index] for index in (0, 1)])
    layer.lora_B["default"].weight.data = torch.from_numpy(b.T.copy()).float()
    a = np.stack([6 * orthonormal(rng, shape[1], 1)[:, 0], 5 * vt[1]])
    layer.lora_A["default"].weight.data = torch.from_numpy(a).float()
    now = model[0].base_layer.weight + layer.get_delta_weight("default")
    said: list[str] = []
    intruders.reduce_intruder_dimension(adapted, logging_sink=said.append)
    theirs = sum(int(one.rpartition(": ")[2]) for one in said if "Intruders: " in one)
    found = subspace_measures(
        now.detach().numpy(), model[0].base_layer.weight.detach().numpy(), k=10
    )
    ours = next(one for one in found if one.measure == "intruders")
    assert (ours.value, ours.error, ours.noise) == (theirs, 0, 0)
    assert (theirs > 0) == (planted_intruders > 0)


def even(u: Matrix, index: int) -> Matrix:
    """A direction with equal cosines to the first 24 vectors, one for each index."""
    signs = np.where(np.arange(24) // (index + 1) % 2, -1.0, 1.0)
    return np.asarray(u[:, :24] @ signs / np.sqrt(24))


@pytest.mark.parametrize("turn", [False, True])
def test_a_size_above_the_rank_of_a_matrix_has_no_gap_rather_than_no_row(turn: bool) -> None:
    """A rank that the values lack; where the construction excludes it, no size is possible."""
    rng = np.random.default_rng(8)
    full, low = rng.normal(size=(6, 5)), np.ones((6, 5))
    now, before = (full, low) if turn else (low, full)
    found = {(one.measure, one.side): one for one in rs.subspace_measures(now, before, k=2)}
    for side in ("left", "right"):
        for name in ("overlap", "least_cosine"):
            assert found[name, side].status == "no-gap" and found[name, side].value is None
        assert found["update_energy", side].status == ("no-gap" if turn else "ok")
    with pytest.raises(ValueError, match="singular values 2 and 3 are too close"):
        rs.principal_cosines(now, before, k=2)
    product = rs.LowRank(full[:, :2], full[:2])
    with pytest.raises(rs.RankscopeError, match="give 1 to 2 for products of rank 2"):
        rs.subspace_measures(product, full, k=3)
    with pytest.raises(rs.RankscopeError, match=r"`k` is 2.0: give 1 to 5 for matrices"):
        rs.subspace_measures(full, low, k=2.0)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"`before` has no certain .*: an entry is NaN or infinite"
    ):
        rs.principal_cosines(full, np.nan * full, k=2)
