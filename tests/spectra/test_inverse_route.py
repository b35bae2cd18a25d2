"""Small singular values from an inverse: every interval contains the truth, or the SVD is taken."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from rankscope.spectra import dense
from rankscope.spectra.backends import NUMPY, Inverse
from rankscope.spectra.bounds import UNIT_ROUNDOFF as U
from rankscope.spectra.bounds import inverse_bound
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.singular_values import spectrum, stack_spectra
from rankscope.spectra.spectrum import Spectrum
from tests.spectra.reference import Exact, is_inside

Values = NDArray[np.float64]


@pytest.fixture(autouse=True)
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of any size may take the route: small ones need it from a condition of 1e6 on."""
    monkeypatch.setattr(dense, "INVERSE_FROM", 1)
    monkeypatch.setattr(dense, "INVERSE_WITHIN", 1e-3)


def made(values: Values, shape: tuple[int, int], rng: np.random.Generator) -> Values:
    """A dense matrix with exactly these singular values, which are integers below 2⁴⁰.

    Sides are powers of two, and so is their product's root: no number on the way is rounded.
    """
    left, right = (scipy.linalg.hadamard(n).astype(float) for n in shape)
    left, right = (one[rng.permutation(len(one))][:, : len(values)] for one in (left, right))
    return np.asarray(left * values @ right.T / np.sqrt(shape[0] * shape[1]))


def contains(found: Spectrum, values: Values) -> bool:
    """Whether every interval contains its value."""
    true = np.sort(values)[::-1]
    return bool(((found.lower <= true) & (true <= found.upper)).all())


def graded(count: int, decades: float, rng: np.random.Generator) -> Values:
    """Integers of which the smallest is that many decades below the largest, and some are equal."""
    values = np.rint(10.0 ** (11 - np.linspace(0, decades, count)))
    values[2:5] = values[3]
    return np.asarray(rng.permutation(values))


SHAPES = [(16, 16), (64, 64), (16, 64), (256, 64)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decades", [5.0, 6.0, 6.4])
def test_values_known_without_error_are_in_narrow_intervals(
    shape: tuple[int, int], decades: float, rng: np.random.Generator
) -> None:
    values = graded(min(shape), decades, rng)
    found = spectrum(made(values, shape, rng))
    assert found.route in ("gram", "inverse") and contains(found, values)
    assert decades < 6.4 or found.route == "inverse"
    width = found.upper - found.lower
    assert (width < 1e-2 * found.values).all()
    # Not merely inside: each value is by the route that knows it, not the end of an interval.
    assert (np.abs(found.values - np.sort(values)[::-1]) < 0.4 * width).all()
    assert (np.diff([found.lower, found.values, found.upper]) <= 0).all()


@pytest.mark.parametrize("seed", range(12))
def test_intervals_contain_the_truth_of_random_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, m = int(rng.integers(2, 9)), int(rng.integers(0, 5))
    left, right = (np.linalg.qr(rng.normal(size=(n, q)))[0] for n in (q + m, q))
    a = left * np.logspace(0, -rng.uniform(3, 9), q) @ right.T
    found = spectrum(a if seed % 2 else a.T)
    assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))


def hostile(name: str, n: int, rng: np.random.Generator) -> Values:
    flat = rng.normal(size=(n, n))
    return {
        "zero": np.zeros((n, n)),
        "ones": np.ones((n, n)),
        "identity": np.eye(n),
        "a row of zeros": np.vstack([flat[1:], np.zeros(n)]),
        "two equal rows": np.vstack([flat[1:], flat[1]]),
        "nearly equal rows": np.vstack([flat[1:], flat[1] + 1e-6 * flat[0]]),
        "rank 2": flat[:, :2] @ flat[:2],
        "Hilbert": scipy.linalg.hilbert(n),
        "Kahan": np.diag(0.6 ** np.arange(n)) @ (np.eye(n) - 0.8 * np.triu(np.ones((n, n)), 1)),
        "rows 1e-300 to 1e300": flat * np.logspace(-300, 300, n)[:, None],
        "columns 1 to 1e-6": flat * np.logspace(0, -6, n),
        "huge": flat * 1e300,
        "tiny": flat * 1e-300,
        "subnormal": np.rint(flat * 10) * 5e-324,
        "NaN": np.where(np.eye(n) == 1, np.nan, flat),
    }[name]


HOSTILE = (
    *("zero", "ones", "identity", "a row of zeros", "two equal rows", "nearly equal rows"),
    *("rank 2", "Hilbert", "Kahan", "rows 1e-300 to 1e300", "columns 1 to 1e-6"),
    *("huge", "tiny", "subnormal", "NaN"),
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_matrices_have_true_intervals(name: str, rng: np.random.Generator) -> None:
    a = hostile(name, 7, rng)
    found = spectrum(a)
    if name == "NaN":
        assert found.status == "nonfinite"
        return
    assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))


def test_single_precision_and_products_take_the_route_too(rng: np.random.Generator) -> None:
    values = graded(16, 6.4, rng)
    a = made(values, (16, 16), rng)
    narrow = (a / 2.0**40).astype(np.float32)
    found = spectrum(Dense(narrow, "float64", Dense.stored(a).rounding))
    assert all(map(is_inside, found.lower, Exact.of(narrow).singular_values(), found.upper))
    product = spectrum(LowRank(a, np.eye(16)))  # whose intervals are wider by the product's error
    assert contains(product, values)


@pytest.mark.parametrize("power", [-900, -400, -280, -240, -230, 150, 170, 300, 450, 900])
def test_neither_scaled_matrices_nor_ordinary_ones_leave_the_range(
    power: int, rng: np.random.Generator
) -> None:
    """Largest entries on both sides of 2^±200, beyond which matrices are scaled."""
    values, a = steep(rng)
    found = spectrum(a * 2.0**power)
    assert found.route == "inverse" and contains(found, values * 2.0**power)


def steep(rng: np.random.Generator) -> tuple[Values, Values]:
    values = graded(16, 6.4, rng)
    return values, made(values, (16, 16), rng)


def test_a_poor_inverse_gives_wider_intervals_and_true_ones(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the residual in the bound, these would be as narrow as before, and wrong."""
    values, a = steep(rng)
    good = spectrum(a)
    real = scipy.linalg.lapack.dtrtri

    def poor(triangle: Values, **options: int) -> tuple[Values, int]:
        inverse, failed = real(triangle, **options)
        return inverse * (1 + 1e-5), failed

    monkeypatch.setattr("scipy.linalg.lapack.dtrtri", poor)
    found = spectrum(a)
    assert (good.route, found.route) == ("inverse", "inverse") and contains(found, values)
    assert found.upper[-1] - found.lower[-1] > 1e-5 * found.values[-1]


FAULTS: dict[str, Callable[[Inverse], Inverse | None]] = {
    "none": lambda found: None,
    "residual too large": lambda found: replace(found, residual=2e-3),
    "residual not a number": lambda found: replace(found, residual=float("nan")),
    "energy infinite": lambda found: replace(found, energy=float("inf")),
    "solver failed": lambda found: replace(found, gram=replace(found.gram, squares=None)),
    "ascending": lambda found: squares(found, lambda s: s[::-1]),
    "last dropped": lambda found: squares(found, lambda s: np.r_[s[:-1], 0]),
    "first off by 1e-6": lambda found: squares(found, lambda s: np.r_[s[0] * (1 + 1e-6), s[1:]]),
    "of another matrix": lambda found: replace(
        found, gram=NUMPY.grams([np.diag(np.arange(1.0, 17)) * 1e-3])[0]
    ),
}


def squares(found: Inverse, change: Callable[[Values], Values]) -> Inverse:
    known = found.gram.squares
    assert known is not None
    return replace(found, gram=replace(found.gram, squares=change(known)))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_inverse_hands_over_to_the_svd(
    fault: Callable[[Inverse], Inverse | None],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values, a = steep(rng)
    real = NUMPY.inverse
    monkeypatch.setattr(
        type(NUMPY), "inverse", lambda self, matrix: (got := real(matrix)) and fault(got)
    )
    found = spectrum(a)
    assert found.route == "qr-svd" and contains(found, values)


def test_the_bound_counts_both_products_and_both_sides() -> None:
    sides = {"long_side": 1000, "short_side": 3}
    assert inverse_bound(1e-5, 0.0, 0.0, **sides) == pytest.approx(1e-5, rel=1e-9)
    assert inverse_bound(0.0, 1e3, 0.0, **sides) == pytest.approx(1001e3 * U, rel=1e-3, abs=0)
    assert inverse_bound(0.0, 0.0, 1e3, **sides) == pytest.approx(4e3 * U, rel=1e-2, abs=0)
    assert inverse_bound(0.0, 0.0, 0.0, **sides) == 8 * U


def test_an_inverse_is_not_tried_where_it_cannot_be_known(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Values] = []
    monkeypatch.setattr(type(NUMPY), "inverse", lambda self, matrix: called.append(matrix))
    assert spectrum(rng.normal(size=(9, 9)) * np.logspace(0, -9, 9)).route == "qr-svd"
    assert spectrum(np.vander(np.linspace(0, 1, 12))).route == "qr-svd" and not called
    monkeypatch.setattr(dense, "INVERSE_FROM", 17)
    assert spectrum(steep(rng)[1]).route == "qr-svd" and not called


def test_torch_gives_the_same_certificate(rng: np.random.Generator) -> None:
    pytest.importorskip("torch")
    from rankscope.spectra.torch_backend import TorchBackend

    for shape in SHAPES:
        values = graded(min(shape), 6.4, rng)
        (found,) = stack_spectra(
            [Dense.stored(made(values, shape, rng))], backend=TorchBackend("cpu")
        )
        assert found.route == "inverse" and contains(found, values)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1024, 1024), (256, 1024)])
def test_large_values_known_without_error_are_in_their_intervals(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    values = graded(min(shape), 5, rng)
    found = spectrum(made(values, shape, rng))
    assert found.route == "inverse" and contains(found, values)
    assert ((found.upper - found.lower) < 1e-2 * found.values).all()
