"""Solvers that return wrong values, as some have: none of them may become a number."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.results.measure import measure
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.singular_values import spectra, spectrum

Values = NDArray[np.float64]
Fault = Callable[[Values], Values]
EIGENVALUES, SVD = np.linalg.eigvalsh, np.linalg.svd


def raised(values: Values) -> Values:
    raise np.linalg.LinAlgError("did not converge")


def changed(values: Values, place: int, factor: float) -> Values:
    values = values.copy()
    values[place] *= factor
    return values


FAULTS: dict[str, Fault] = {
    "first dropped": lambda s: changed(s, 0, 0.0),
    "last dropped": lambda s: changed(s, -1, 0.0),
    "sign flipped": lambda s: changed(s, -1, -1.0),
    "last off by 1e-3": lambda s: changed(s, -1, 1 + 1e-3),
    "first off by 1e-6": lambda s: changed(s, 0, 1 + 1e-6),
    "in the wrong order": lambda s: s[::-1].copy(),
    "NaN": lambda s: changed(s, 1, np.nan),
    "all NaN": lambda s: s * np.nan,
    "infinite": lambda s: changed(s, 0, np.inf),
    "error": raised,
}


def plant(monkeypatch: pytest.MonkeyPatch, *, gram: Fault | None, svd: Fault | None) -> None:
    """Put faults behind numpy's solvers."""
    if gram is not None:
        monkeypatch.setattr("numpy.linalg.eigvalsh", lambda a: gram(EIGENVALUES(a)))
    if svd is not None:
        monkeypatch.setattr("numpy.linalg.svd", lambda a, **_: svd(SVD(a, compute_uv=False)))


@pytest.fixture
def flat(rng: np.random.Generator) -> Values:
    """A matrix that the Gram route resolves."""
    return rng.normal(size=(12, 30))


@pytest.fixture
def steep(rng: np.random.Generator) -> Values:
    """A matrix that needs the SVD: its last singular value is 1e-9 of the first."""
    left, right = (np.linalg.qr(rng.normal(size=(n, 12)))[0] for n in (12, 30))
    return np.asarray(left * np.geomspace(1, 1e-9, 12) @ right.T)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_eigensolver_hands_over_to_the_svd(
    fault: Fault, flat: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spectrum(flat).route == "gram"
    plant(monkeypatch, gram=fault, svd=None)
    found = spectrum(flat)
    assert found.route == "qr-svd"
    assert found.values == pytest.approx(SVD(flat, compute_uv=False), rel=1e-12)


def test_the_diagonal_is_not_taken_for_eigenvalues(
    flat: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numpy.linalg.eigvalsh", lambda gram: np.sort(np.diag(gram)))
    assert spectrum(flat).route == "qr-svd"


def test_values_of_another_matrix_are_not_taken(
    flat: Values, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = rng.normal(size=(12, 30))
    monkeypatch.setattr("numpy.linalg.eigvalsh", lambda gram: EIGENVALUES(other @ other.T))
    assert spectrum(flat).route == "qr-svd"
    monkeypatch.setattr("numpy.linalg.svd", lambda a, **_: SVD(other, compute_uv=False))
    assert spectrum(flat).status == "skipped:decomposition-failed"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_svd_gives_no_number(
    fault: Fault, steep: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spectrum(steep).route == "qr-svd"
    plant(monkeypatch, gram=None, svd=fault)
    found = spectrum(steep)
    assert found.status == "skipped:decomposition-failed"
    numbers = [x for x in measure(found).values() if x not in (None, "")]
    assert numbers == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_two_faulty_solvers_give_no_number(
    fault: Fault, flat: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, gram=fault, svd=fault)
    assert spectrum(flat).status == "skipped:decomposition-failed"


def test_a_faulty_svd_of_one_product_leaves_the_others(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = LowRank(rng.normal(size=(3, 9, 2)), rng.normal(size=(3, 2, 8)))
    expected = spectra(stack)
    calls = iter(range(10))

    def svd(a: Values, **_: Any) -> Values:
        if len(a) > 1 or next(calls) == 1:
            raise np.linalg.LinAlgError("did not converge")
        return np.asarray(SVD(a, compute_uv=False))

    monkeypatch.setattr("numpy.linalg.svd", svd)
    found = spectra(stack)
    assert [one.status for one in found] == ["ok", "skipped:decomposition-failed", "ok"]
    assert found[2].values == pytest.approx(expected[2].values)


@pytest.mark.parametrize("fault", [FAULTS["first dropped"], FAULTS["all NaN"]], ids=["0", "NaN"])
def test_a_wrong_spectrum_of_a_product_is_no_spectrum(
    fault: Fault, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = LowRank(rng.normal(size=(9, 2)), rng.normal(size=(2, 8)))
    monkeypatch.setattr("numpy.linalg.svd", lambda a, **_: fault(SVD(a, compute_uv=False)[0])[None])
    assert spectrum(product).status == "skipped:decomposition-failed"
