"""Values of rounded matrices against those of the matrices before rounding, by numpy alone."""

# Effective ranks are compared with those of the rounded matrix, as the module says.

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from rankscope.errors import WrongSettingError
from rankscope.results.results import table_of
from rankscope.results.spectra_store import Entry
from rankscope.results.step_rows import row_of
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectrum
from rankscope.statistics.certified import ERRORS, values_and_errors

PLACE = {
    **{"layer": 0, "role": "q", "component": "weight", "head": None, "expert": None, "name": "q"},
    **{"since": None, "restarts": None, "window": ""},
}


RANKS = ("effective_rank", "per", "rank_utilisation")


def truth(s: NDArray[np.float64]) -> dict[str, float]:
    """Every metric by its definition, in decimal logarithms where the errors are."""
    p = s / s.sum()
    rank = float(np.exp(-(p * np.log(p)).sum()))
    ninety = int(np.ceil(0.9 * s.size))
    return {
        **{"effective_rank": rank, "per": rank / s.size, "rank_utilisation": rank / s.size},
        "stable_rank": float((s**2).sum() / s[0] ** 2),
        "participation_ratio": float((s**2).sum() ** 2 / (s**4).sum()),
        "condition_number": float(np.log10(s[0] / s[-1])),
        "condition_number_90": float(np.log10(s[0] / s[ninety - 1])),
        "condition_number_r": float(np.log10(s[0] / s[-1])),
        **{"spectral_norm": float(s[0]), "frobenius_norm": float(np.sqrt((s**2).sum()))},
        "nuclear_norm": float(s.sum()),
    }


def bfloat16(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return (values.astype(np.float32).view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)


def measured(values: NDArray[np.float32]) -> pd.DataFrame:
    found = spectrum(Dense.stored(values))
    return table_of([row_of("run", 0, Entry(key="", place=PLACE, found=found))])


@pytest.mark.parametrize("spread", [0.3, 2.0])
@pytest.mark.parametrize("rounded", [bfloat16, np.float32])
def test_the_value_before_rounding_is_within_the_error(spread, rounded, matrix_with) -> None:  # type: ignore[no-untyped-def]
    for _ in range(5):
        exact = matrix_with(np.exp(-spread * np.linspace(0, 2, 24)), (24, 40))
        stored = rounded(exact)
        expected = truth(np.linalg.svd(exact, compute_uv=False))
        of_stored = truth(np.linalg.svd(stored.astype(np.float64), compute_uv=False))
        expected |= {name: of_stored[name] for name in RANKS}
        table = measured(stored)
        for column in {*ERRORS} & {*expected}:
            (value,), (error,) = values_and_errors(table, column)
            assert error < 0.5 * abs(expected[column]) + 0.5
            assert abs(value - expected[column]) <= error + 1e-13, column


def test_what_is_only_a_bound_or_not_known_has_no_value(matrix_with) -> None:  # type: ignore[no-untyped-def]
    table = measured(bfloat16(matrix_with(np.logspace(0, -9, 24), (24, 24))))
    assert table["condition_number_status"].tolist() == ["lower-bound"]
    assert np.isnan(values_and_errors(table, "condition_number")[0]).all()
    resolved = measured(bfloat16(matrix_with(np.linspace(1, 2, 24), (24, 24))))
    bounded = resolved.assign(condition_number_status="lower-bound")
    assert np.isfinite(values_and_errors(resolved, "condition_number")[0]).all()
    assert np.isnan(values_and_errors(bounded, "condition_number")[0]).all()
    with pytest.raises(WrongSettingError, match="error of 'outliers' is not known"):
        values_and_errors(table, "outliers")


def test_values_that_may_be_nothing_but_noise_count_in_the_error(matrix_with) -> None:  # type: ignore[no-untyped-def]
    """Of a matrix of rank 3 in bfloat16, PER counts its noise as dimensions."""
    exact = matrix_with([1, 0.9, 0.8], (48, 48))
    (value,), (error,) = values_and_errors(measured(bfloat16(exact)), "per")
    true = truth(np.array([1, 0.9, 0.8]))["effective_rank"] / 48
    assert value > 1.03 * true
    assert value - error <= true
