"""The floor of a LoHa product is the edge of what its independent errors can make."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.components.factor_noise import joint_floor
from rankscope.components.formed import Formed
from rankscope.spectra.rounding import MARGIN
from tests.spectra.gallery import rounded

Matrix = NDArray[np.float64]


def khatri_rao(first: Matrix, second: Matrix, *, by_rows: bool) -> Matrix:
    if by_rows:
        return khatri_rao(first.T, second.T, by_rows=False).T
    return np.asarray((first[:, :, None] * second[:, None, :]).reshape(len(first), -1))


def joined(first: Matrix, second: Matrix, dtype: str, *, by_rows: bool) -> Formed:
    parts = (read(first, dtype), read(second, dtype))
    values = khatri_rao(first, second, by_rows=by_rows)
    return Formed(values, dtype, beside=1.0, made_of=parts)


def read(values: Matrix, dtype: str) -> Formed:
    return Formed.read(values.astype(np.float32 if dtype == "bfloat16" else dtype), dtype)


def made(rng: np.random.Generator, shape: tuple[int, int], rank: int) -> list[Matrix]:
    m, n = shape
    return [rng.normal(size=s) for s in ((m, rank), (m, rank), (rank, n), (rank, n))]


def product(parts: list[Matrix]) -> Matrix:
    left, other_left, right, other_right = parts
    return np.asarray((left @ right) * (other_left @ other_right))


def floor_of(parts: list[Matrix], dtype: str) -> float:
    left = joined(parts[0], parts[1], dtype, by_rows=False)
    floor = joint_floor(left, joined(parts[2], parts[3], dtype, by_rows=True))
    assert floor is not None
    return floor


def test_the_floor_is_the_edge_of_the_covariances(rng: np.random.Generator) -> None:
    """Written out: the product moves linearly with each stored number, by a matrix of its own."""
    parts = [rounded(part, "bfloat16").values for part in made(rng, (6, 5), 2)]
    rows, columns = np.zeros((6, 6)), np.zeros((5, 5))
    for k, part in enumerate(parts):
        for place in np.ndindex(part.shape):
            moved = [part.copy() for part in parts]
            ulp = 2.0 ** (np.frexp(part[place])[1] - 8)
            moved[k][place] += ulp
            error = (product(moved) - product(parts)) / np.sqrt(12)
            rows += error @ error.T
            columns += error.T @ error
    edge = sum(np.sqrt(np.linalg.norm(x, 2)) for x in (rows, columns))
    assert MARGIN * edge * 0.999 <= floor_of(parts, "bfloat16") <= MARGIN * edge * np.sqrt(2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("shape", [(4, 4), (12, 10), (40, 7), (60, 60)])
def test_the_floor_is_above_what_rounding_brings_and_near_it(
    shape: tuple[int, int], dtype: str, rng: np.random.Generator
) -> None:
    ratios = []
    for _ in range(40):
        meant = made(rng, shape, 2)
        parts = [rounded(part, dtype).values for part in meant]
        brought = np.linalg.norm(product(parts) - product(meant), 2)
        ratios.append(floor_of(parts, dtype) / brought)
    assert min(ratios) >= 1 and np.median(ratios) < 4


@pytest.mark.parametrize("scale", [2.0**-100, 1.0, 2.0**80])
def test_a_power_of_two_scales_the_floor(scale: float, rng: np.random.Generator) -> None:
    parts = [rounded(part, "float32").values for part in made(rng, (9, 8), 2)]
    scaled = [parts[0] * scale, *parts[1:]]
    assert floor_of(scaled, "float32") == pytest.approx(floor_of(parts, "float32") * scale)


def test_one_factor_with_dependent_errors_is_enough(
    rng: np.random.Generator,
) -> None:
    left, right = (
        rounded(part, "float32").values
        for part in (rng.normal(size=(6, 4)), rng.normal(size=(4, 5)))
    )
    halves = [rounded(rng.normal(size=(6, 2)), "float32").values for _ in range(2)]
    plain = read(left, "float32"), read(right, "float32")
    assert joint_floor(*plain) is None
    assert joint_floor(joined(halves[0], halves[1], "float32", by_rows=False), plain[1])


def test_what_is_rounded_otherwise_is_left_to_the_general_bound(rng: np.random.Generator) -> None:
    first, second = (rng.normal(size=(6, 2)) for _ in range(2))
    parts = (Formed(first, "float32", relative=1e-8), read(second, "float32"))
    left = Formed(khatri_rao(first, second, by_rows=False), "float32", made_of=parts)
    assert joint_floor(left, read(rng.normal(size=(4, 5)), "float32")) is None
