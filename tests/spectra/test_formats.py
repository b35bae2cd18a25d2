"""The format that a matrix is rounded to, read from its values."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankscope.metrics import numerical_rank
from rankscope.spectra.formats import FORMATS, format_of, narrowest
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectrum
from tests.spectra.gallery import rounded

BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
HOLDERS = {
    "bfloat16": ("float32", "float64"),
    "float16": ("float16", "float32", "float64"),
    "float32": ("float32", "float64"),
    "float64": ("float64",),
}


def holds(name: str, value: float) -> bool:
    """Whether a format holds a number, from the definition of binary floating point."""
    bits, smallest = FORMATS[name].mantissa + 1, FORMATS[name].smallest_exponent
    exact = abs(Fraction(value))
    if not exact:
        return True
    exponent = max(np.frexp(float(value))[1] - 1, smallest)
    units = exact / Fraction(2) ** (int(exponent) - bits + 1)
    largest = 15 if name == "float16" else 1023 if name == "float64" else 127
    return units.denominator == 1 and exponent <= largest


@pytest.mark.parametrize(
    ("dtype", "holder"), [(name, holder) for name, those in HOLDERS.items() for holder in those]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_format_is_recognised_in_every_file_that_holds_it(
    dtype: str, holder: str, order: str, rng: np.random.Generator
) -> None:
    values = rounded(rng.normal(size=(40, 30)), dtype).values.astype(holder, order=order)
    assert narrowest(values) == dtype
    assert format_of(values, holder).significant_bits == BITS[dtype]
    assert Dense.stored(values).rounding.significant_bits == BITS[dtype]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_one_entry_that_needs_more_bits_is_seen_wherever_it_is(
    dtype: str, rng: np.random.Generator
) -> None:
    values = rounded(rng.normal(size=(700, 300)), dtype).values
    for place in ((0, 0), (350, 7), (699, 299)):
        other = values.copy()
        other[place] = 1 + 2.0**-40
        assert narrowest(other) == "float64"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(width=16, allow_nan=False, allow_infinity=False),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.sampled_from([2.0**-133, 2.0**-134, 2.0**-24, 2.0**-25, 65504.0, 65536.0, 1e-300]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_narrowest_format_is_the_first_that_holds_every_value(values: list[float]) -> None:
    array = np.array(values)
    found = narrowest(array)
    if not array.any():
        return
    names = ("bfloat16", "float16", "float32", "float64")
    expected = next(name for name in names if all(holds(name, value) for value in values))
    assert found == expected


def test_float16_is_not_taken_for_what_is_out_of_its_range() -> None:
    ten_bits = np.array([[1 + 2.0**-10, 3.0]], np.float32)
    assert narrowest(ten_bits) == "float16"
    assert narrowest(ten_bits * np.float32(2.0**17)) == "float32"
    assert narrowest(ten_bits * np.float32(2.0**-20)) == "float32"


def test_never_fewer_bits_than_bfloat16_has_and_zeros_show_nothing() -> None:
    assert format_of(np.array([[1.0, -1.0, 0.0]]), "float64").significant_bits == 8
    for dtype in ("float64", "float32", "float16"):
        assert format_of(np.zeros((3, 3), dtype), dtype) == FORMATS[dtype]


def test_the_spacing_of_float16_near_zero_stays_whatever_bits_are_needed(
    rng: np.random.Generator,
) -> None:
    tiny = (rng.integers(1, 200, (30, 40)) * 2.0**-24).astype(np.float16)  # one to eight bits
    assert narrowest(tiny) == "bfloat16"
    found = Dense.stored(tiny).rounding
    truth = 2.0**-24 / np.sqrt(12) * (np.sqrt(30) + np.sqrt(40))
    assert found.significant_bits == 8 and found.floor >= truth


@pytest.mark.parametrize("holder", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_weight_saved_in_a_wider_format_keeps_its_floor(
    dtype: str, holder: type, rng: np.random.Generator
) -> None:
    low = rng.normal(size=(96, 16)) @ rng.normal(size=(16, 128))
    found = spectrum(rounded(low, dtype).values.astype(holder))
    assert found.dtype == np.dtype(holder).name and found.significant_bits == BITS[dtype]
    assert found.noise_source == "storage"
    assert numerical_rank(found.lower, found.noise_floor) == 16


def test_the_byte_order_of_an_array_does_not_matter(rng: np.random.Generator) -> None:
    values: NDArray[np.float32] = rounded(rng.normal(size=(9, 7)), "bfloat16").values.astype(">f4")
    assert narrowest(values) == "bfloat16"
    assert narrowest(rng.normal(size=(9, 7)).astype(">f8")) == "float64"
