"""What every backend promises, each recomputed from its definition."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.analysis.worker import in_float64
from rankscope.spectra.backends import NUMPY, Backend
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import stack_spectra

Values = NDArray[np.float64]


@pytest.fixture(params=["numpy", "torch"])
def backend(request: pytest.FixtureRequest) -> Backend[Any]:
    if request.param == "numpy":
        return NUMPY
    pytest.importorskip("torch")
    from rankscope.spectra.torch_backend import TorchBackend

    return TorchBackend("cpu")


@pytest.mark.parametrize("largest", [2.0**127, 2.0**-149, 0.0, np.inf])
def test_float32_that_is_held_in_float64_is_in_range_as_float32_is(
    backend: Backend[Any], rng: np.random.Generator, largest: float
) -> None:
    narrow = (rng.choice([-1.0, 1.0], size=(3, 5)) * largest).astype(np.float32)
    held = in_float64(Dense.stored(narrow))
    assert isinstance(held, Dense) and held.values.dtype == np.float64 and held.is_ordinary
    scaled, exponent = backend.in_range(held.values, is_ordinary=True)
    checked, same = backend.in_range(held.values)
    assert exponent == same == 0 and np.array_equal(np.asarray(scaled), np.asarray(checked))
    wide = in_float64(Dense.stored(held.values * 2.0**300))
    assert isinstance(wide, Dense) and not wide.is_ordinary


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("power", "beyond"),
    [(-1070, 0), (-400, 0), (0, 0), (1000, 0), (-1070, 500), (-300, 500), (0, 500), (500, 500)],
)
def test_squares_of_entries_stay_in_range_whatever_their_signs(
    backend: Backend[Any], sign: float, power: int, beyond: int
) -> None:
    """Entries are integers times a power of two; the largest has the other sign."""
    values = sign * np.ldexp(np.array([[1.0, 3.0, 9.0], [-11.0, 2.0, 5.0]]), power)
    values[1, 0] *= 2.0**beyond
    scaled, exponent = backend.in_range(values)
    scaled = np.asarray(scaled)
    assert (np.ldexp(scaled, exponent) == values).all()
    assert 2.0**-210 < abs(scaled).max() < 2.0**210
    (found,) = stack_spectra([Dense.stored(values)], backend)
    gram = scaled @ scaled.T
    trace, determinant = gram[0, 0] + gram[1, 1], gram[0, 0] * gram[1, 1] - gram[0, 1] ** 2
    largest = math.sqrt((trace + math.sqrt(trace**2 - 4 * determinant)) / 2)
    assert found.values[0] == pytest.approx(math.ldexp(largest, exponent), rel=1e-12, abs=0)


@pytest.mark.parametrize("shape", [(6, 6), (20, 6), (6, 13)])
@pytest.mark.parametrize("poor", [False, True])
def test_an_inverse_comes_with_how_near_it_is(
    backend: Backend[Any],
    shape: tuple[int, int],
    poor: bool,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of R⁻¹ all three numbers follow from A; of a multiple of it, from its square."""
    times = 1.001 if poor else 1.0
    spoil(times, monkeypatch)
    a = rng.normal(size=shape)
    found = backend.inverse(backend.in_range(a)[0])
    assert found is not None and found.gram.squares is not None
    q = min(shape)
    s = np.linalg.svd(a, compute_uv=False)
    assert found.gram.squares == pytest.approx(times**2 / s[::-1] ** 2, rel=1e-9)
    assert found.gram.trace == pytest.approx((times**2 / s**2).sum())
    assert found.gram.energy == pytest.approx((times**4 / s**4).sum())
    assert found.energy == pytest.approx(q * times**2)
    assert found.residual == pytest.approx((times**2 - 1) * math.sqrt(q), abs=1e-11)


def spoil(times: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the inverse that both libraries find be this multiple of the right one."""
    torch = pytest.importorskip("torch")
    import scipy.linalg.lapack

    real, solve = scipy.linalg.lapack.dtrtri, torch.linalg.solve_triangular

    def inverse(triangle: Values, **options: int) -> tuple[Values, int]:
        found, failed = real(triangle, **options)
        return found * times, failed

    monkeypatch.setattr("scipy.linalg.lapack.dtrtri", inverse)
    monkeypatch.setattr(
        "torch.linalg.solve_triangular", lambda *given, **options: solve(*given, **options) * times
    )


def test_the_triangle_of_another_matrix_gives_no_number(
    backend: Backend[Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its singular values fit its diagonal; only the norm of the matrix itself shows it."""
    steep = rng.normal(size=(12, 8)) * np.geomspace(1, 1e-9, 8)
    (found,) = stack_spectra([Dense.stored(steep)], backend)
    assert found.route == "qr-svd"
    other_qr(2 * steep, monkeypatch)
    (found,) = stack_spectra([Dense.stored(steep)], backend)
    assert found.status == "skipped:decomposition-failed"


def other_qr(other: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both libraries return the triangular factor of another matrix."""
    torch = pytest.importorskip("torch")
    one, two = np.linalg.qr, torch.linalg.qr
    monkeypatch.setattr("numpy.linalg.qr", lambda a, **options: one(other, **options))
    tensor = torch.from_numpy(other)
    monkeypatch.setattr("torch.linalg.qr", lambda a, **options: two(tensor, **options))
