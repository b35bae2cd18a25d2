"""What is made of several tensors carries all their errors: against exact rational arithmetic."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file

from rankscope.checkpoints.contents import Adapter, Heads
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.circuits import Circuits, CircuitsChange, Cut, Link
from rankscope.components.products import change_of_product, sum_of_products
from rankscope.components.recipes import Difference, Products, Weight
from rankscope.metrics import numerical_rank
from rankscope.results.measure import measure
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectra, spectrum
from rankscope.spectra.spectrum import Spectrum
from tests.components.exact import (
    Rational,
    effective_rank,
    exact,
    frobenius,
    misses,
    singular_values,
)

Matrix = NDArray[np.float64]
FORMATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SIDE, RANK = 12, 2


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Write arrays to a file in a format, rounded by torch, and list its tensors."""

    def write(dtype: torch.dtype = torch.float32, **arrays: Matrix) -> dict[str, Tensor]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        save_file({k: torch.from_numpy(a).to(dtype) for k, a in arrays.items()}, path)
        return dict(open_tensors(path))

    return write


def product(adapter: Adapter) -> Rational:
    """scale·B·A without an error."""
    assert adapter.scale is not None
    factors = (exact(x.read().astype(np.float64)) for x in (adapter.lora_B, adapter.lora_A))
    left, right = factors
    return exact(np.array([[adapter.scale]]))[0, 0] * (left @ right)


def effective(weight: Weight) -> Rational:
    """W + scale·B·A without an error."""
    values = exact(weight.tensor.read().astype(np.float64))
    return values if weight.adapter is None else values + product(weight.adapter)


def check(found: Spectrum, matrix: Rational) -> None:
    """Every interval holds the truth, and so does that of the effective rank."""
    true = singular_values(matrix)
    assert not misses(found.lower, found.upper, true)
    row = measure(found)
    if isinstance(row["per_error"], float) and isinstance(row["effective_rank"], float):
        erank = effective_rank(true)
        assert abs(row["effective_rank"] - erank) <= row["per_error"] * erank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("left", [0.0, 1e-8, 1e-3])
def test_a_weight_that_its_adapter_cancels_stays_in_its_intervals(
    dtype: torch.dtype, left: float, on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    factors = on_disk(
        dtype, B=rng.normal(size=(SIDE, RANK)), A=rng.normal(size=(RANK, SIDE)) * 0.37
    )
    adapter = Adapter(factors["A"], factors["B"], 1.7)
    minus = -np.array(product(adapter), np.float64) + left * rng.normal(size=(SIDE, SIDE))
    weight = Weight(on_disk(dtype, W=minus)["W"], adapter)
    (found,) = spectra(weight.read())
    check(found, effective(weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5, 3e-8])
def test_a_small_update_over_a_merge_stays_in_its_intervals(
    dtype: torch.dtype, size: float, on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    scale = 2.0 / 3
    base, left, right = (rng.normal(size=s) for s in ((SIDE, SIDE), (SIDE, RANK), (RANK, SIDE)))
    before = on_disk(dtype, W=base, B=left, A=right)
    earlier = Weight(before["W"], Adapter(before["A"], before["B"], scale))
    merged = np.array(effective(earlier), np.float64)
    after = on_disk(
        dtype, W=merged, B=size * rng.normal(size=left.shape), A=rng.normal(size=right.shape)
    )
    later = Weight(after["W"], Adapter(after["A"], after["B"], scale))
    (found,) = spectra(Difference(later, earlier, merges=1).read())
    check(found, effective(later) - effective(earlier))
    row, before_size = measure(found, whole=False), frobenius(effective(earlier))
    ratio = frobenius(effective(later) - effective(earlier)) / before_size
    assert abs(row["relative_size"] - ratio) <= row["relative_size_error"]  # type: ignore[operator]
    assert row["relative_size_error"] < 1e-5 * row["relative_size"]  # type: ignore[operator]


def test_an_update_whose_columns_cancel_stays_in_its_intervals(
    on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    half, other = rng.normal(size=(SIDE, 3)), rng.normal(size=(3, SIDE))
    left, right = np.hstack([half, 1e-9 * half - half]), np.vstack([other, other])
    before = on_disk(torch.float64, W=np.zeros((SIDE, SIDE)))
    after = on_disk(torch.float64, W=1e-9 * np.eye(SIDE), B=left, A=right)
    later = Weight(after["W"], Adapter(after["A"], after["B"], 0.7))
    (found,) = spectra(Difference(later, Weight(before["W"])).read())
    check(found, effective(later))


@pytest.mark.parametrize("moved", [1.0, 1e-6, 1e-12])
def test_an_update_of_live_adapters_stays_in_its_intervals(
    moved: float, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    base, left, right = (rng.normal(size=s) for s in ((SIDE, SIDE), (SIDE, RANK), (RANK, SIDE)))
    weights = []
    for size in (0.0, moved):
        found = on_disk(
            torch.float64, W=base, B=left + size * rng.normal(size=left.shape),
            A=right + size * rng.normal(size=right.shape),
        )  # fmt: skip
        weights.append(Weight(found["W"], Adapter(found["A"], found["B"], 0.3)))
    earlier, later = weights
    matrix = Difference(later, earlier).read()
    assert isinstance(matrix, LowRank) and matrix.inner == 2 * RANK
    (found_spectrum,) = spectra(matrix)
    check(found_spectrum, effective(later) - effective(earlier))
    # The bound goes with the change, not with what it is a change of.
    assert found_spectrum.error < 1e-11 * max(moved, 1e-3)


def ov(o: Weight, v: Weight, heads: Heads, *, published: bool = False) -> Circuits:
    output = Link(o, Cut(heads.count, heads.size), by_columns=True)
    return Circuits((output, Link(v, Cut(heads.kv_count, heads.size))), heads.count, published)


def circuit(o: Matrix, v: Matrix, heads: Heads, head: int) -> Rational:
    size, group = heads.size, heads.count // heads.kv_count
    part = head // group
    return exact(o[:, head * size : (head + 1) * size]) @ exact(v[part * size : (part + 1) * size])


@pytest.mark.parametrize("cancel", [1e-4, 1e-6, 0.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_published_circuits_that_nearly_cancel_stay_in_their_intervals(
    cancel: float, dtype: torch.dtype, on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    heads, width = Heads(3, 3, 4), 12
    half, other = rng.normal(size=(12, 6)), rng.normal(size=(6, 12))
    v = np.hstack([half, -half])  # times [X; X] is zero
    o = np.vstack([other, other + cancel * rng.normal(size=other.shape)])
    found = on_disk(dtype, o=o, v=v)
    recipe = ov(Weight(found["o"]), Weight(found["v"]), heads, published=True)
    o, v = (found[name].read().astype(np.float64) for name in "ov")
    blocks = [
        exact(v[h * 4 : h * 4 + 4]) @ exact(o[:, h * 4 : h * 4 + 4]) for h in range(heads.count)
    ]
    (result,) = spectra(recipe.read())
    assert result.shape == (4, width)
    check(result, np.hstack(blocks))
    row = measure(result, whole=False)
    if cancel == 0 and dtype == torch.float64:
        assert row["numerical_rank"] == 0 and row["per"] is None
    assert row["condition_number"] is None and row["condition_number_status"] == ""


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("adapted", [False, True])
def test_rounding_of_its_factors_is_not_rank_of_a_circuit(
    dtype: str, size: float, adapted: bool, on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:  # fmt: skip
    heads, width, true = Heads(4, 2, 12), 48, 2
    o, v = rng.normal(size=(width, width)), rng.normal(size=(24, width))
    add = [size * rng.normal(size=(m, 1)) @ rng.normal(size=(1, n)) for m, n in (o.shape, v.shape)]
    found = [on_disk(FORMATS[dtype], o=o + k * add[0], v=v + k * add[1]) for k in (0, 1)]
    adapter = None
    if adapted:
        factors = on_disk(
            FORMATS[dtype], B=rng.normal(size=(width, 3)) * 0.1, A=rng.normal(size=(3, width))
        )
        adapter = Adapter(factors["A"], factors["B"], 0.7)
    earlier, later = (ov(Weight(f["o"], adapter), Weight(f["v"]), heads) for f in found)
    wide = 0.0 if adapter is None else np.array(product(adapter), np.float64)
    matrix = CircuitsChange(later, earlier).read()
    for head, one in enumerate(spectra(matrix)):
        columns, part = slice(head * 12, head * 12 + 12), slice(head // 2 * 12, head // 2 * 12 + 12)
        before, after = (
            (o + k * add[0] + wide)[:, columns] @ (v + k * add[1])[part] for k in (0, 1)
        )
        stored = [
            (f["o"].read().astype(np.float64) + wide)[:, columns]
            @ f["v"].read().astype(np.float64)[part]
            for f in found
        ]
        error = np.linalg.norm((stored[1] - stored[0]) - (after - before), 2)
        assert error <= one.noise_floor
        if size > 1e-6 or dtype == "float32":  # below one ulp most entries did not move at all
            assert one.noise_floor <= 20 * error
        assert one.noise_source == "storage"
        assert numerical_rank(one.lower, one.noise_floor) <= true
        floor = earlier.factors().floors[head]
        assert np.linalg.norm(stored[0] - before, 2) <= floor


@pytest.mark.parametrize("size", [1.0, 1e-5, 1e-10])
@pytest.mark.slow
def test_circuits_and_their_changes_stay_in_their_intervals(
    size: float, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    heads = Heads(4, 2, 3)
    o, v = rng.normal(size=(12, 12)), rng.normal(size=(6, 12))
    before = on_disk(torch.float64, o=o, v=v)
    after = on_disk(
        torch.float64, o=o + size * rng.normal(size=o.shape), v=v + size * rng.normal(size=v.shape)
    )
    earlier, later = (ov(Weight(f["o"]), Weight(f["v"]), heads) for f in (before, after))
    arrays = [[f[name].read() for name in "ov"] for f in (before, after)]
    for head, one in enumerate(spectra(earlier.read())):
        check(one, circuit(*arrays[0], heads, head))
    for head, one in enumerate(spectra(CircuitsChange(later, earlier).read())):
        then, now = (circuit(*pair, heads, head) for pair in arrays)
        check(one, now - then)
        row = measure(one, whole=False)
        ratio = frobenius(now - then) / frobenius(then)
        assert abs(row["relative_size"] - ratio) <= row["relative_size_error"]  # type: ignore[operator]


def test_a_change_that_is_exactly_zero_is_zero_on_every_route(
    on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    base, left, right = (rng.normal(size=s) for s in ((SIDE, SIDE), (SIDE, RANK), (RANK, SIDE)))
    same = [on_disk(W=base, B=left, A=right) for _ in range(2)]
    one, other = (Weight(f["W"], Adapter(f["A"], f["B"], 0.7)) for f in same)
    plain, plain_too = (Weight(f["W"]) for f in same)
    heads = Heads(3, 3, 4)
    opposite = Adapter(on_disk(A=right)["A"], on_disk(B=-left)["B"], 0.7)
    assert one.adapter is not None
    for recipe in (
        Difference(one, other),
        Difference(plain, plain_too),
        CircuitsChange(ov(one, plain, heads), ov(other, plain_too, heads)),
        Products((one.adapter, opposite)),
        Products((opposite, one.adapter, one.adapter, opposite)),
    ):
        for found in spectra(recipe.read()):
            assert found.status == "zero" and found.values[0] == 0
            row = measure(found)
            assert row["effective_rank"] is None and row["spectral_norm"] == 0
            assert row["relative_size"] in (0, None)


def test_only_the_head_that_changed_has_a_change(
    on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    heads, o, v = Heads(3, 3, 4), rng.normal(size=(12, 12)), rng.normal(size=(12, 12))
    other = o.copy()
    other[:, 4:8] += rng.normal(size=(12, 4))
    earlier, later = (
        ov(Weight(f["o"]), Weight(f["v"]), heads)
        for f in (on_disk(o=o, v=v), on_disk(o=other, v=v))
    )
    found = spectra(CircuitsChange(later, earlier).read())
    assert [one.status for one in found] == ["zero", "ok", "zero"]
    assert found[1].max_rank == 4  # v is the same: the change is (O′ − O)·V


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-14, 2), st.floats(-8, 8), st.booleans())
@pytest.mark.slow
def test_changes_of_products_stay_in_their_intervals(
    seed: int, moved: float, graded: float, turned: bool
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(9, 3)), rng.normal(size=(3, 7)) * 10.0**graded
    later = LowRank(left + 10.0**moved * rng.normal(size=left.shape), -right if turned else right)
    earlier = LowRank(left, right)
    if turned:
        later = LowRank(
            later.left, later.right + 10.0 ** (moved + graded) * rng.normal(size=(3, 7))
        )
    found = spectrum(change_of_product(later, earlier))
    true = exact(later.left) @ exact(later.right) - exact(left) @ exact(right)
    check(found, true)


def test_a_sum_that_cancels_inexactly_has_no_rank_but_bounds(rng: np.random.Generator) -> None:
    left, right = rng.normal(size=(12, 2)), rng.normal(size=(2, 12))
    terms = [LowRank(left, right), LowRank(-left / 3, right), LowRank(-2 * left / 3, right)]
    found = spectrum(sum_of_products(terms))
    check(found, sum(exact(t.left) @ exact(t.right) for t in terms))
    row = measure(found, whole=False)
    assert row["numerical_rank"] == 0 and row["effective_rank"] is None
    assert row["noise_source"] == "arithmetic" and row["spectral_norm"] is not None


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_after_a_merge_the_weight_keeps_the_rounding_of_its_base(
    wide: torch.dtype, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    low = rng.normal(size=(96, 16)) @ rng.normal(size=(16, 96))
    base = torch.from_numpy(low).bfloat16().double().numpy()
    left, right = 0.01 * rng.normal(size=(96, 4)), rng.normal(size=(4, 96))
    before, after = on_disk(wide, W=base)["W"], on_disk(wide, W=base + left @ right)["W"]
    (alone,) = spectra(Weight(after).read())
    (merged,) = spectra(Weight(after, origin=before).read())
    (change,) = spectra(Difference(Weight(after), Weight(before), merges=1).read())
    assert numerical_rank(alone.lower, alone.noise_floor) == 96
    assert numerical_rank(merged.lower, merged.noise_floor) == 20
    assert numerical_rank(change.lower, change.noise_floor) == 4
    assert merged.significant_bits == 8 and alone.significant_bits == change.significant_bits > 8
    (unrecorded,) = spectra(Difference(Weight(after), Weight(before)).read())
    assert unrecorded.significant_bits == 8  # it may as well be that only the first was rounded


def test_a_weight_of_all_bits_does_not_read_its_origin(
    on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    found = on_disk(W=rng.normal(size=(12, 12)), V=rng.normal(size=(12, 12)))
    formed = Weight(found["W"], origin=found["V"]).formed()
    assert len(formed.stored) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["W", "A", "B"])
def test_a_part_that_is_not_finite_leaves_no_spectrum(
    bad: float, where: str, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    arrays = {name: rng.normal(size=s) for name, s in
              {"W": (SIDE, SIDE), "B": (SIDE, RANK), "A": (RANK, SIDE)}.items()}  # fmt: skip
    fine = on_disk(**arrays)
    for other in "AB":  # NaN times zero is not zero
        if where in "AB" and other != where:
            arrays[other] = np.zeros_like(arrays[other])
    arrays[where][1, 1] = bad
    found = on_disk(**arrays)
    one, other_one = (Weight(f["W"], Adapter(f["A"], f["B"], 0.7)) for f in (found, fine))
    assert one.adapter is not None
    heads, plain = Heads(3, 3, 4), Weight(fine["W"])
    circuits, before = (ov(weight, plain, heads) for weight in (one, other_one))
    published = ov(one, plain, heads, published=True)
    for recipe in (one, Difference(one, other_one), published):
        assert [s.status for s in spectra(recipe.read())] == ["nonfinite"]
    for recipe in (circuits, CircuitsChange(circuits, before), CircuitsChange(before, circuits)):
        found_spectra = spectra(recipe.read())
        assert "nonfinite" in [s.status for s in found_spectra]
        for one_head in found_spectra:  # the other heads have spectra, with bounds
            if one_head.status != "nonfinite":
                assert np.isfinite([one_head.error, one_head.noise_floor]).all()
    if where in "WA":
        assert [s.status for s in spectra(circuits.read())][1:] == ["ok", "ok"]
    if where != "W":
        assert spectra(Products((one.adapter,)).read())[0].status == "nonfinite"


def test_factors_at_both_ends_of_float64_have_bounds(
    on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    o, v = rng.normal(size=(SIDE, SIDE)) * 1e200, rng.normal(size=(SIDE, SIDE)) * 1e-200
    found = on_disk(torch.float64, o=o, v=v, o2=1.5 * o)
    heads = Heads(3, 3, 4)
    now = ov(Weight(found["o2"]), Weight(found["v"]), heads)
    then = ov(Weight(found["o"]), Weight(found["v"]), heads)
    for recipe in (now, CircuitsChange(now, then)):
        for one in spectra(recipe.read()):
            assert one.status == "ok" and 0 < one.error < 1e-10 and one.noise_floor < 1e-10
