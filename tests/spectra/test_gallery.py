"""Every certificate held against singular values that are known to 40 digits."""

import mpmath
import numpy as np
import pytest

from rankscope.results.measure import measure
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectrum
from rankscope.spectra.spectrum import Spectrum
from tests.spectra.gallery import Stored
from tests.spectra.make_gallery import Entry, read_gallery
from tests.spectra.reference import Exact, distance, effective_rank, is_inside

ENTRIES = {entry.name: entry for entry in read_gallery()}
NONZERO = {name: entry for name, entry in ENTRIES.items() if set(entry.s) != {"0"}}
DENSE = [name for name, entry in ENTRIES.items() if isinstance(entry.matrix, Stored)]
U = 2.0**-53

# Flat spectra are resolved by their Gram matrix; a value below √(u·m)·s₁ never is, unless the
# storage format puts the noise floor above that.
GRAM = ("random", "random, bf16", "orthogonal", "product of inner n/4, bf16", "entries 1e180",
        "entries 1e-180", "two values, n/2 times each", "outlier column, bf16")  # fmt: skip
SVD = ("exact rank n/4, integers", "geometric 1..1e-6", "graded 1..1e-16, rotated", "Hilbert",
       "graded 1..1e-16 by columns", "product of inner n/4, fp64", "product of inner n/4, fp32",
       "ones", "one huge row", "zero row", "columns 1e150 and 1e-150")  # fmt: skip


def found_in(entry: Entry, *, transposed: bool = False) -> Spectrum:
    """What the package says of an entry."""
    matrix = entry.matrix
    if isinstance(matrix, LowRank):
        left, right = matrix.left, matrix.right
        return spectrum(LowRank(right.T, left.T) if transposed else matrix)
    values = matrix.values.T if transposed else matrix.values
    return spectrum(Stored(values, matrix.dtype).dense())


@pytest.fixture(params=["as it is", "transposed"])
def transposed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "transposed")


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_interval_contains_the_true_value(entry: Entry, transposed: bool) -> None:
    found = found_in(entry, transposed=transposed)
    inside = map(is_inside, found.lower, entry.s, found.upper)
    assert all(inside)
    assert set(entry.s[found.max_rank :]) <= {"0"}
    assert (found.lower <= found.values).all() and (found.values <= found.upper).all()


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_every_value_is_within_the_stated_error(entry: Entry, transposed: bool) -> None:
    found = found_in(entry, transposed=transposed)
    errors = map(distance, found.values, entry.s)
    assert max(errors) <= found.error


@pytest.mark.parametrize("entry", NONZERO.values(), ids=NONZERO)
def test_the_bound_on_per_is_above_its_error(entry: Entry, transposed: bool) -> None:
    found = found_in(entry, transposed=transposed)
    row = measure(found)
    true = effective_rank(entry.s)
    rounding = 8 * found.max_rank * U  # of the entropy's own sum
    assert abs(mpmath.mpf(row["effective_rank"]) / true - 1) <= row["per_error"] + rounding


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_condition_numbers_are_right_or_lower_bounds(entry: Entry, transposed: bool) -> None:
    row = measure(found_in(entry, transposed=transposed))
    number, status = row["condition_number"], row["condition_number_status"]
    true = entry.true_condition
    if status == "ok":
        assert abs(mpmath.mpf(number) / true - 1) <= 0.01
    elif status == "lower-bound":
        assert 1 <= number <= true
    elif status == "inf":
        assert true == mpmath.inf == number
    else:
        assert set(entry.s) == {"0"}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_the_other_condition_numbers_are_right_where_they_are_given(
    entry: Entry, transposed: bool
) -> None:
    row = measure(found_in(entry, transposed=transposed))
    s = [mpmath.mpf(x) for x in entry.s]
    place = -(-9 * len(s) // 10)
    if row["condition_number_90"] is not None:
        true = s[0] / s[place - 1] if s[place - 1] else mpmath.inf
        assert row["condition_number_90"] == true or (
            abs(row["condition_number_90"] / true - 1) <= 0.01
        )
    if row["condition_number_r"] is not None:
        true = s[0] / s[row["numerical_rank"] - 1]
        assert abs(row["condition_number_r"] / true - 1) <= 0.01


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_only_what_is_above_the_noise_floor_counts_as_rank(entry: Entry) -> None:
    found = found_in(entry)
    row = measure(found)
    above = sum(mpmath.mpf(x) > found.noise_floor for x in entry.s)
    assert (row["numerical_rank"] or 0) <= above
    assert (row["numerical_rank"] or 0) <= sum(x != "0" for x in entry.s)


@pytest.mark.parametrize("name", DENSE)
def test_the_route_is_the_one_that_the_spectrum_calls_for(name: str, transposed: bool) -> None:
    route = found_in(ENTRIES[name], transposed=transposed).route
    assert route == "gram" if name in GRAM else route in ("gram", "qr-svd")
    assert route == "qr-svd" if name in SVD else route in ("gram", "qr-svd")


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in DENSE])
def test_products_go_by_their_factors_while_these_cap_the_rank(name: str) -> None:
    entry = ENTRIES[name]
    assert isinstance(entry.matrix, LowRank)
    capped = entry.matrix.inner < min(entry.matrix.shape)
    assert (found_in(entry).route == "low-rank") is capped


@pytest.mark.parametrize("name", ["random", "Hilbert", "two terms, sum 1e-6", "subnormal entries"])
def test_the_references_can_be_made_again(name: str) -> None:
    entry = ENTRIES[name]
    if isinstance(entry.matrix, LowRank):
        exact = Exact.of(entry.matrix.left) @ Exact.of(entry.matrix.right)
    else:
        exact = Exact.of(entry.matrix.values)
    with mpmath.workdps(60):
        stored = ["0" if x == "0" else mpmath.nstr(mpmath.mpf(x), 30) for x in entry.s]
    assert exact.singular_values(digits=30) == stored


def test_the_reference_of_a_known_matrix_is_known() -> None:
    golden = Exact.of(np.array([[1.0, 1.0], [1.0, 0.0]])).singular_values()
    with mpmath.workdps(60):
        ratio = (1 + mpmath.sqrt(5)) / 2
        assert golden == [mpmath.nstr(x, 40) for x in (ratio, 1 / ratio)]
    assert Exact.of(np.array([[3.0, 4.0], [6.0, 8.0]])).singular_values()[1] == "0"
