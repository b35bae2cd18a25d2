"""Cosines of changes whose angle was prescribed, dense and as products."""

import math
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.spectra.cosines import KNOWN_TO, Change, cosine_of
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.rounding import Rounding

Matrix = NDArray[np.float64]
M, N, R = 12, 9, 3
ANGLES = (1.0, 0.7, 0.01, 1e-9, 0.0, -0.3, -1.0)


def dense(values: Matrix, error: float = 0.0) -> Dense:
    return Dense(values, "float64", Rounding.by_norm(0.0, 53), error)


def at_angle(rng: np.random.Generator, one: LowRank, cosine: float) -> LowRank:
    """A product of twice the inner dimension whose cosine with ``one`` is prescribed."""
    left, right = (rng.normal(size=x.shape) for x in (one.left, one.right))
    basis = np.linalg.qr(one.left).Q
    left -= basis @ (basis.T @ left)  # so the two products are orthogonal
    sizes = [np.linalg.norm(a @ b) for a, b in ((one.left, one.right), (left, right))]
    parts = [cosine * one.left / sizes[0], math.sqrt(1 - cosine**2) * left / sizes[1]]
    return LowRank(np.hstack(parts), np.vstack([one.right, right]))


def exact(change: Change) -> list[list[Fraction]]:
    parts = [change.values] if isinstance(change, Dense) else [change.left, change.right]
    rational = [[[Fraction(x) for x in row] for row in part.tolist()] for part in parts]
    if len(rational) == 1:
        return rational[0]
    left, right = rational
    return [
        [
            sum((a * b for a, b in zip(row, column, strict=True)), Fraction(0))
            for column in zip(*right, strict=True)
        ]
        for row in left
    ]


def true_cosine(one: Change, other: Change) -> float:
    """In rational arithmetic up to the roots."""
    a, b = ([x for row in exact(change) for x in row] for change in (one, other))
    dot, *squares = (
        sum(x * y for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b))
    )
    with mpmath.workdps(50):
        root = mpmath.sqrt(mpmath.mpf(squares[0].numerator) / squares[0].denominator) * mpmath.sqrt(
            mpmath.mpf(squares[1].numerator) / squares[1].denominator
        )
        return mpmath.mpf(dot.numerator) / dot.denominator / root


@pytest.mark.parametrize("cosine", ANGLES)
@pytest.mark.parametrize("forms", ["dd", "dp", "pd", "pp"])
def test_the_prescribed_angle_is_found_within_the_bound(
    rng: np.random.Generator, cosine: float, forms: str
) -> None:
    one = LowRank(rng.normal(size=(M, R)), rng.normal(size=(R, N)))
    pair = [one, at_angle(rng, one, cosine)]
    changes = [
        p if form == "p" else dense(p.multiplied()) for p, form in zip(pair, forms, strict=True)
    ]
    found = cosine_of(changes[0], changes[1], None)
    assert found is not None and found.bias is None
    assert abs(found.value - true_cosine(*changes)) <= found.error < 1e-12
    assert found.value == pytest.approx(cosine, abs=1e-13)


def test_blocks_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (dense(rng.normal(size=(M, N))) for _ in range(2))
    whole = cosine_of(one, other, None)
    monkeypatch.setattr("rankscope.spectra.cosines.BLOCK", 2 * N)
    cut = cosine_of(one, other, None)
    assert whole is not None and cut is not None
    assert cut.value == pytest.approx(whole.value, abs=1e-15)


@pytest.mark.parametrize("factors", [(1e-170, 1e160), (1e150, 1e150), (1e-300, 1e-9)])
def test_sizes_do_not_matter(rng: np.random.Generator, factors: tuple[float, float]) -> None:
    one = LowRank(rng.normal(size=(M, R)), rng.normal(size=(R, N)))
    pair = one, at_angle(rng, one, 0.3)
    for forms in ("dd", "dp", "pp"):
        changes = [
            replace(p, left=f * p.left) if form == "p" else dense(f * p.multiplied())
            for p, form, f in zip(pair, forms, factors, strict=True)
        ]
        found = cosine_of(changes[0], changes[1], None)
        assert found is not None and found.value == pytest.approx(0.3, abs=1e-12)


def test_what_forming_the_changes_rounded_is_in_the_bound(rng: np.random.Generator) -> None:
    """Errors of the stated size, in the direction that turns a change most."""
    a, b = rng.normal(size=(2, M, N))
    error = 1e-3 * float(np.linalg.norm(a))
    found = cosine_of(dense(a, error), dense(b), None)
    assert found is not None and 2e-3 < found.error < KNOWN_TO
    across = b - a * (a * b).sum() / (a * a).sum()
    for sign in (1, -1):
        moved = a + sign * error * across / np.linalg.norm(across)
        true = float((moved * b).sum() / np.linalg.norm(moved) / np.linalg.norm(b))
        assert 0.3 * found.error < abs(found.value - true) <= found.error


def test_a_cosine_that_is_not_known_to_a_hundredth_is_not_given(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, M, N))
    for late in (dense(a, 0.01 * float(np.linalg.norm(a))), dense(a)):
        for early in (dense(b, 0.01 * float(np.linalg.norm(b))), dense(b)):
            is_known = late.error == early.error == 0
            assert (cosine_of(late, early, None) is not None) == is_known


def test_terms_that_cancel_leave_no_number(rng: np.random.Generator) -> None:
    """A sum of two products that is 1e-15 of either: its factors do not give its direction."""
    left, right = rng.normal(size=(M, R)), rng.normal(size=(R, N))
    moved = left * (1 + 1e-15 * rng.normal(size=left.shape))
    rest = LowRank(np.hstack([moved, -left]), np.vstack([right, right]))
    other = LowRank(left, right)
    assert cosine_of(rest, other, None) is None
    assert cosine_of(dense(rng.normal(size=(M, N))), rest, None) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_changes_without_a_direction_have_no_cosine(rng: np.random.Generator, value: float) -> None:
    good = LowRank(rng.normal(size=(M, R)), rng.normal(size=(R, N)))
    zero = replace(good, left=np.zeros((M, R)))
    spoilt = replace(good, right=np.where(np.arange(N) == 4, value, good.right))
    broken = good.multiplied()
    broken[3, 4] = value
    for bad in (zero, spoilt, dense(np.zeros((M, N))), dense(broken)):
        for one in (good, dense(good.multiplied())):
            assert cosine_of(bad, one, None) is None
            assert cosine_of(one, bad, None) is None


def test_the_bias_is_what_rounding_adds_over_both_norms() -> None:
    one, other = dense(np.full((2, 2), 3.0)), dense(np.full((2, 2), -0.5))
    found = cosine_of(one, other, -1.5)
    assert found is not None and found.value == pytest.approx(-1) and found.bias == -0.25
