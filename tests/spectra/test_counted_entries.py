import math
from collections.abc import Callable

import numpy as np
import pytest

from rankscope.spectra import counted_entries, entries
from rankscope.spectra.counted_entries import LATER_BITS, counted_sums
from rankscope.spectra.entries import from_sums, sparsity


def exact(values: np.ndarray) -> tuple[float, float]:
    """Gini coefficient and Hoyer's sparsity from sorted entries, in extended precision."""
    x = np.sort(np.abs(values.astype(np.longdouble)).ravel())
    n, i = x.size, np.arange(1, x.size + 1)
    norm, root = np.sqrt(((x / x[-1]) ** 2).sum()) * x[-1], np.sqrt(np.longdouble(n))
    gini = ((2 * i - n - 1) * x).sum() / (n * x.sum())
    return float(gini), float((root - x.sum() / norm) / (root - 1))


@pytest.fixture
def counted_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small matrices are counted, in several parts."""
    monkeypatch.setattr(entries, "COUNTING_FROM", 0)
    monkeypatch.setattr(counted_entries, "COUNTED", 7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("unit", [1.0, 2.0**-13])
def test_large_matrices_are_counted_to_what_is_promised(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: str, unit: float
) -> None:
    monkeypatch.setattr(entries, "_sorted_sums", None)  # which is not needed
    for draw in (rng.normal, lambda size: rng.standard_t(2, size), rng.random):
        values = np.asarray(draw(size=(400, 500)) * unit).astype(dtype)
        values[:40] = 0
        assert sparsity(values) == pytest.approx(exact(values), abs=5e-9)


@pytest.mark.usefixtures("counted_always")
@pytest.mark.parametrize("unit", [1.0, 2.0**-130, 2.0**100])
def test_entries_of_bfloat16_are_counted_without_error(
    rng: np.random.Generator, unit: float
) -> None:
    values = (np.rint(rng.normal(size=(9, 5)) * 4) * unit).astype(np.float32)
    values[0, :2] = 0.0, -0.0
    sums = counted_sums(values)
    assert sums is not None and (sums.weighted_error, sums.squares_error) == (0, 0)
    assert sparsity(values) == pytest.approx(exact(values), rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 2.0**-126, 2.0**-140, 2.0**127])
@pytest.mark.parametrize("below", [0.0, 0.1, 0.5, 0.9])
def test_errors_bound_entries_that_are_anywhere_between_those_that_count_as_alike(
    rng: np.random.Generator, unit: float, below: float
) -> None:
    """All are next to the ends of one interval, or uniform in it: 512 to 514 of 512ths."""
    ends = np.where(rng.random(3000) < below, 0, LATER_BITS)
    for places in (ends, rng.integers(0, LATER_BITS + 1, 3000)):
        values = ((1 + places * 2.0**-23) * unit).astype(np.float32)
        sums = counted_sums(values)
        assert sums is not None
        x = np.sort(values.astype(np.longdouble)) / np.longdouble(sums.unit)
        weighted = float(((2 * np.arange(3000) - 2999) * x).sum())
        slack = 1e-15 * 3000**2  # rounding in float64
        assert abs(weighted - sums.weighted) <= sums.weighted_error + slack
        assert abs(float((x**2).sum()) - sums.squares) <= sums.squares_error + slack
        assert sums.total == pytest.approx(float(x.sum()), rel=1e-14)


def test_where_the_order_matters_that_was_not_counted_entries_are_sorted(
    rng: np.random.Generator,
) -> None:
    values = (1 + rng.random((200, 200)) * 1e-4).astype(np.float32)
    sums = counted_sums(values)
    assert sums is not None and from_sums(values.size, sums, 0.0) is None
    assert sparsity(values) == pytest.approx(exact(values), rel=1e-9)


@pytest.mark.usefixtures("counted_always")
@pytest.mark.parametrize("odd", [0.0, np.inf, np.nan, -np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_counting_gives_no_number_where_sorting_gives_none(odd: float, dtype: str) -> None:
    values = np.zeros((3, 4), dtype)
    values[1, 2] = odd
    assert counted_sums(values) is None and sparsity(values) is None


@pytest.mark.usefixtures("counted_always")
@pytest.mark.parametrize("unit", [1e300, 5e-324, 1e-310])
def test_any_float64_is_counted(rng: np.random.Generator, unit: float) -> None:
    values = np.rint(rng.normal(size=(6, 7)) * 100) * unit
    assert sparsity(values) == pytest.approx(exact(values), abs=1e-6)
    assert math.isfinite(float(np.abs(values).max()))


@pytest.mark.parametrize("part", [7, 2**18])
@pytest.mark.parametrize("unit", [1.0, 2.0**-126, 2.0**-149, 2.0**110])
def test_counts_that_are_told_from_sums_of_bits_are_those_of_the_entries(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, unit: float, part: int
) -> None:
    """Also of zeros, whose bits add nothing, and where many entries have the same leading bits."""
    monkeypatch.setattr(counted_entries, "COUNTED", part)
    few, alike = rng.standard_t(1, size=200), 1 + rng.random(1500) / 1000
    for entries_of in (few, np.append(few, [0.0] * 50), alike, np.append(alike, few)):
        values = (entries_of * unit).astype(np.float32)
        bits = values.view(np.uint32) & 0x7FFF_FFFF
        leading, inverse = np.unique(bits >> 14, return_inverse=True)
        found, counts, later = counted_entries._counts(values, 1.0)
        assert found.tolist() == leading.tolist()
        assert counts.tolist() == np.bincount(inverse).tolist()
        assert later.tolist() == np.bincount(inverse, bits & 0x3FFF).tolist()


HOSTILE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "one": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 5, a, 0),
    "alike": np.ones_like,
    "signed zeros": lambda a: np.where(a > 0.5, a, np.copysign(0.0, a)),
    "two values": lambda a: np.where(a > 0, 3.0, -1e-3),
    "huge range": lambda a: np.sign(a) * np.exp2(-100 * np.abs(a)),
    "subnormal": lambda a: np.rint(100 * a) * 2.0**-135,
    "heavy tail": lambda a: a / np.roll(a, 1),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_whatever_the_entries_both_ways_find_what_the_definitions_say(
    kind: str, dtype: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = HOSTILE[kind](rng.normal(size=(17, 12))).astype(dtype)
    for seen in (values, values.T, values[::-1, ::2], np.asfortranarray(values[1:])):
        truth = exact(seen) if seen.any() else None
        for way in ("counted_sums", "_sorted_sums"):
            monkeypatch.undo()
            monkeypatch.setattr(entries, "COUNTING_FROM", 0)
            monkeypatch.setattr(entries, way, lambda _: None)  # the other one is left
            found = sparsity(seen)
            assert (found is None) == (truth is None)
            assert truth is None or found == pytest.approx(truth, abs=1e-6)
