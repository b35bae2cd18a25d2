"""Eigenvalues in two stages, against known ones and against another library."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from rankscope.spectra import symmetric
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.lapack_routines import Routines, routines
from rankscope.spectra.symmetric import TwoStages, eigenvalues, two_stages

Values = NDArray[np.float64]
NAMES = ("dsytrd_sy2sb", "dsytrd_sb2st", "dsterf")


@pytest.fixture(scope="module")
def lapack() -> Routines:
    found = routines(*NAMES)
    if found is None:
        pytest.skip("no library here has these routines")
    return found


def known(n: int, kind: str, rng: np.random.Generator) -> Values:
    """Integers below 2⁴⁰, of which some are equal, zero or far smaller than others."""
    values = {
        "random": rng.integers(0, 2**40, n),
        "equal": np.full(n, 12345),
        "clustered": rng.integers(0, 3, n) + 10**9,
        "graded": 2.0 ** np.linspace(0, 40, n).round(),
        "rank deficient": rng.integers(0, 2**30, n) * (rng.random(n) < 0.2),
        "zero": np.zeros(n),
        "negative": rng.integers(-(2**30), 2**30, n),
    }[kind]
    return np.sort(np.asarray(values, np.float64))


KINDS = ("random", "equal", "clustered", "graded", "rank deficient", "zero", "negative")


def made(values: Values, rng: np.random.Generator) -> Values:
    """A dense matrix with exactly these eigenvalues: every number on the way is an integer."""
    n = len(values)
    turned = scipy.linalg.hadamard(n)[rng.permutation(n)] * rng.choice([-1.0, 1.0], n)[:, None]
    return np.asarray((turned * values[rng.permutation(n)]) @ turned.T / n)


def is_near(found: Values, values: Values) -> bool:
    """Whether no eigenvalue is off by more than half of what the bounds allow for."""
    allowed = 4 * len(values) * UNIT_ROUNDOFF * np.abs(values).max()
    return bool(np.abs(found - values).max() <= allowed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "width"), [(8, 2), (32, 4), (256, 64)])
def test_eigenvalues_known_without_error_are_found(
    lapack: Routines, rng: np.random.Generator, n: int, width: int, kind: str
) -> None:
    values = known(n, kind, rng)
    assert is_near(TwoStages(lapack, width=width).eigenvalues(made(values, rng)), values)


@pytest.mark.parametrize("n", [6, 11, 17])
def test_eigenvalues_of_random_matrices_agree_with_many_digits(
    lapack: Routines, rng: np.random.Generator, n: int
) -> None:
    a = rng.normal(size=(n, n)) * np.logspace(0, -5, n)
    a = a @ a.T
    with mpmath.workdps(40):
        exact = mpmath.eigsy(mpmath.matrix(a.tolist()), eigvals_only=True)
        found = TwoStages(lapack, width=3).eigenvalues(a)
        errors = [abs(mpmath.mpf(float(x)) - y) for x, y in zip(found, exact, strict=True)]
    assert max(errors) <= 8 * n * UNIT_ROUNDOFF * float(exact[n - 1])


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_scaled_matrices_have_scaled_eigenvalues(
    lapack: Routines, rng: np.random.Generator, scale: float
) -> None:
    values = known(32, "random", rng)
    unit = 2.0 ** np.round(np.log2(scale / values[-1]))
    found = TwoStages(lapack, width=4).eigenvalues(made(values, rng) * unit)
    assert is_near(found / unit, values)


def test_the_matrix_is_not_changed_and_bits_repeat(
    lapack: Routines, rng: np.random.Generator
) -> None:
    a = made(known(128, "random", rng), rng)
    before, stages = a.copy(), TwoStages(lapack)
    first = stages.eigenvalues(a)
    assert (a == before).all()
    with ThreadPoolExecutor(4) as threads:
        for other in threads.map(stages.eigenvalues, [a] * 8):
            assert (first == other).all()


def test_large_matrices_go_in_two_stages_and_small_ones_as_before(
    lapack: Routines, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = made(known(128, "random", rng), rng)
    monkeypatch.setattr(symmetric, "LEAST_FAST", 100)
    monkeypatch.setattr(symmetric, "LEAST", 100)
    two_stages.cache_clear()
    monkeypatch.setattr("numpy.linalg.eigvalsh", lambda a: np.zeros(len(a)))
    assert eigenvalues(a).any() and not eigenvalues(a[:99, :99]).any()
    two_stages.cache_clear()
    monkeypatch.setattr(Routines, "kernel", "Haswell")  # which needs larger ones
    monkeypatch.setattr(symmetric, "LEAST", 120)
    assert eigenvalues(a).any() and not eigenvalues(a[:119, :119]).any()
    two_stages.cache_clear()


def without(name: str) -> Callable[..., None]:
    """Calling a routine, apart from one that does nothing and reports success."""
    real = Routines.call

    def call(self: Routines, called: str, *arguments: object) -> None:
        if called != name or -1 in [x for x in arguments if isinstance(x, int)]:
            real(self, called, *arguments)  # type: ignore[arg-type]

    return call


def failing(self: Routines, called: str, *arguments: object) -> None:
    raise np.linalg.LinAlgError(f"LAPACK's {called} failed with 3")


def wrong_band(self: TwoStages, matrix: Values) -> Values:
    band = RIGHT_BAND(self, matrix)
    band[3, 2] += 1e-9 * np.abs(band).max()
    return band


RIGHT_BAND, RIGHT = TwoStages.band, TwoStages.of_band
FAULTS: dict[str, tuple[type, str, Callable[..., object]]] = {
    "band not filled": (Routines, "call", without("dsytrd_sy2sb")),
    "not made tridiagonal": (Routines, "call", without("dsytrd_sb2st")),
    "not solved": (Routines, "call", without("dsterf")),
    "reports a failure": (Routines, "call", failing),
    "wrong band": (TwoStages, "band", wrong_band),
    "wrong order": (TwoStages, "of_band", lambda self, band: RIGHT(self, band)[::-1]),
    "NaN": (TwoStages, "of_band", lambda self, band: RIGHT(self, band) * np.nan),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.usefixtures("lapack")
def test_a_library_with_faults_is_not_used(
    fault: tuple[type, str, Callable[..., object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_stages.cache_clear()
    assert two_stages() is not None and symmetric.way().startswith("two stages from")
    two_stages.cache_clear()
    monkeypatch.setattr(*fault)
    assert two_stages() is None and symmetric.way() == "one stage"
    two_stages.cache_clear()


@pytest.mark.parametrize(("kernel", "least"), [("SkylakeX", 1024), ("Haswell", 2048), ("", 2048)])
@pytest.mark.usefixtures("lapack")
def test_the_size_depends_on_the_kernel(
    kernel: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Routines, "kernel", kernel)
    two_stages.cache_clear()
    assert symmetric.way() == f"two stages from {least}"
    two_stages.cache_clear()


def test_without_the_routines_there_is_one_stage(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert routines("dsytrd_no_such_routine") is None
    monkeypatch.setattr(symmetric, "routines", lambda *names: None)
    monkeypatch.setattr(symmetric, "LEAST_FAST", 10)
    two_stages.cache_clear()
    a = made(known(16, "random", rng), rng)
    assert (eigenvalues(a) == np.linalg.eigvalsh(a)).all()
    two_stages.cache_clear()


def test_a_failure_of_a_routine_is_raised(lapack: Routines) -> None:
    a = np.full((70, 70), np.nan)
    with pytest.raises(np.linalg.LinAlgError, match="dsterf failed"):
        TwoStages(lapack, width=4).eigenvalues(a)


def test_another_library_gives_the_same(rng: np.random.Generator) -> None:
    """LAPACK's own driver for two stages with its own band, where scipy's library has it."""
    lapack = routines(*NAMES, "dsyev_2stage")
    if lapack is None:
        pytest.skip("no library here has this driver")
    a = rng.normal(size=(200, 200))
    a = a @ a.T
    values, work, count = np.empty(200), np.empty(1), ctypes.c_int64(200)
    for size in (-1, 0):
        size = size or int(work[0])
        work = np.empty(max(size, 1))
        lapack.call("dsyev_2stage", b"N", b"L", 200, a.copy(), count, values, work, size)
    assert is_near(TwoStages(lapack).eigenvalues(a), values)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "graded", "rank deficient"])
def test_large_eigenvalues_known_without_error_are_found(
    lapack: Routines, rng: np.random.Generator, kind: str
) -> None:
    values = known(1024, kind, rng)
    assert is_near(TwoStages(lapack).eigenvalues(made(values, rng)), values)
