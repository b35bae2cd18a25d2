from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.keyed import keyed_generator
from rankscope.training.adapters.subspaces import captured_energy, new_a, overlap
from rankscope.training.config import Subspace

SHAPES = [(8, 8), (12, 5), (5, 12)]
SUBSPACES: tuple[Subspace, ...] = get_args(Subspace)
ORTHOGONAL = [kind for kind in SUBSPACES if kind != "random"]
BY_GRADIENT = ["grad_top", "grad_sample", "mix"]


def orthonormal(rows: int, columns: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(draw).Q


def gradient_of(shape: tuple[int, int], values: list[float]) -> tuple[Tensor, Tensor]:
    """A gradient with the given singular values, and its right singular vectors as rows."""
    k = len(values)
    right = orthonormal(shape[1], k, seed=1).T
    s = torch.tensor(values, dtype=torch.float64)
    return orthonormal(shape[0], k, seed=0) * s @ right, right


def falling(shape: tuple[int, int], base: float = 0.7) -> list[float]:
    return [base**k for k in range(min(shape))]


def drawn(
    kind: str, shape: tuple[int, int], rank: int, gradient: Tensor | None = None, *, seed: int = 0
) -> Tensor:
    generator = keyed_generator(seed, "lora_A")
    return new_a(kind, shape, rank, generator=generator, gradient=gradient)


def share_within(directions: Tensor, a: Tensor) -> Tensor:
    """How much of each direction, a unit row, lies in the rows of A."""
    q = torch.linalg.qr(a.double().T).Q
    return (directions @ q).square().sum(1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_random_rows_are_uniform_draws_of_the_generator_and_nothing_else(
    shape: tuple[int, int], rank: int
) -> None:
    bound = 1 / math.sqrt(shape[1])
    draw = torch.empty(rank, shape[1])
    draw.uniform_(-bound, bound, generator=keyed_generator(0, "lora_A"))
    assert torch.equal(drawn("random", shape, rank), draw)


@pytest.mark.parametrize("kind", ORTHOGONAL)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_rows_are_orthogonal_and_as_long_as_random_ones(
    kind: str, shape: tuple[int, int], rank: int
) -> None:
    gradient, _ = gradient_of(shape, falling(shape))
    a = drawn(kind, shape, rank, gradient)
    assert (a.shape, a.dtype, a.device.type) == ((rank, shape[1]), torch.float32, "cpu")
    expected = torch.eye(rank, dtype=torch.float64) / 3
    torch.testing.assert_close(a.double() @ a.double().T, expected, rtol=0, atol=1e-6)


def test_a_random_row_has_that_length_in_the_root_mean_square() -> None:
    a = drawn("random", (4, 300), 500)
    assert a.square().sum(1).mean() == pytest.approx(1 / 3, rel=0.02)


@pytest.mark.parametrize("kind", SUBSPACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_draw_repeats_to_the_bit_and_depends_on_the_generator(
    kind: str, shape: tuple[int, int]
) -> None:
    gradient, _ = gradient_of(shape, falling(shape))
    first, again, other = (drawn(kind, shape, 4, gradient, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    # Four of five directions: a sample may be the same by chance, the other kinds may not.
    if kind not in ("grad_top", "grad_sample"):
        assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", BY_GRADIENT)
def test_the_subspace_does_not_depend_on_the_gradients_size_or_sign(kind: str) -> None:
    gradient, _ = gradient_of((9, 7), falling((9, 7)))
    expected = drawn(kind, (9, 7), 4, gradient)
    for factor in (-1.0, 1e-40, 1e30):
        torch.testing.assert_close(drawn(kind, (9, 7), 4, factor * gradient), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_top_rows_are_the_first_right_singular_vectors(
    shape: tuple[int, int], rank: int
) -> None:
    gradient, right = gradient_of(shape, falling(shape))
    a = drawn("grad_top", shape, rank, gradient)
    cosines = (a.double() * right[:rank]).sum(1).abs() * math.sqrt(3)
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_component_of_a_singular_vector_is_positive(shape: tuple[int, int]) -> None:
    gradient, _ = gradient_of(shape, falling(shape))
    a = drawn("grad_top", shape, 3, gradient)
    largest = a.gather(1, a.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 5])
def test_a_mix_holds_the_top_half_rounded_up(shape: tuple[int, int], rank: int) -> None:
    gradient, right = gradient_of(shape, falling(shape))
    half = (rank + 1) // 2
    within = share_within(right[:half], drawn("mix", shape, rank, gradient))
    torch.testing.assert_close(within, torch.ones_like(within), rtol=0, atol=1e-6)


def test_the_other_half_of_a_mix_differs_from_draw_to_draw() -> None:
    gradient, _ = gradient_of((20, 30), falling((20, 30)))
    a, b = (drawn("mix", (20, 30), 6, gradient, seed=seed) for seed in (0, 1))
    assert 0.5 < overlap(a, b) < 0.9


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.slow
def test_samples_follow_the_singular_values(rank: int) -> None:
    values = [0.6, 0.3, 0.1]
    gradient, right = gradient_of((4, 3), values)
    generator, draws = keyed_generator(0, "draws"), 1500
    counts = torch.zeros(3, dtype=torch.float64)
    for _ in range(draws):
        a = new_a("grad_sample", (4, 3), rank, generator=generator, gradient=gradient)
        counts += share_within(right, a).round()
    # One after another without replacement: p_i, and sum over j of p_j * p_i / (1 - p_j).
    expected = torch.tensor(values, dtype=torch.float64)
    if rank == 2:
        pairs = expected[:, None] * expected / (1 - expected[:, None])
        expected = expected + pairs.sum(0) - pairs.diagonal()
    torch.testing.assert_close(counts / draws, expected, rtol=0, atol=4 * 0.5 / math.sqrt(draws))


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_are_singular_vectors_in_descending_order(shape: tuple[int, int]) -> None:
    gradient, right = gradient_of(shape, falling(shape))
    for seed in range(5):
        a = drawn("grad_sample", shape, 3, gradient, seed=seed).double() * math.sqrt(3)
        cosines = (a @ right.T).abs()
        torch.testing.assert_close(cosines.amax(1), torch.ones(3).double(), rtol=0, atol=1e-6)
        picked = cosines.argmax(1).tolist()
        assert picked == sorted(set(picked))


@pytest.mark.parametrize("kind", BY_GRADIENT)
@pytest.mark.parametrize("rank", [3, 6, 7])
def test_beyond_the_rank_of_the_gradient_rows_are_random(kind: str, rank: int) -> None:
    gradient, right = gradient_of((9, 7), [1.0, 0.4])
    a, b = (drawn(kind, (9, 7), rank, gradient.float(), seed=seed) for seed in (0, 1))
    within = share_within(right, a)
    torch.testing.assert_close(within, torch.ones_like(within), rtol=0, atol=1e-5)
    assert captured_energy(gradient, a) == pytest.approx(1.0)
    assert not torch.allclose(a, b)


@pytest.mark.parametrize("kind", BY_GRADIENT)
def test_a_gradient_with_fewer_rows_than_the_rank_is_made_up_for(kind: str) -> None:
    gradient, _ = gradient_of((2, 9), [1.0, 0.5])
    a = drawn(kind, (2, 9), 5, gradient)
    assert torch.linalg.matrix_rank(a) == 5
    assert captured_energy(gradient, a) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", BY_GRADIENT)
def test_a_zero_gradient_leaves_a_random_subspace(kind: str) -> None:
    assert torch.equal(drawn(kind, (6, 8), 3, torch.zeros(6, 8)), drawn("orthogonal", (6, 8), 3))


@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_as_many_rows_as_columns_span_everything(kind: str) -> None:
    gradient, _ = gradient_of((9, 6), falling((9, 6)))
    a = drawn(kind, (9, 6), 6, gradient)
    assert captured_energy(torch.randn(9, 6, generator=keyed_generator(0)), a) == pytest.approx(1)


@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_more_rows_than_columns_are_refused(kind: str) -> None:
    with pytest.raises(RankscopeError, match="7 rows cannot be orthogonal in 6 dimensions"):
        drawn(kind, (9, 6), 7, torch.ones(9, 6))


@pytest.mark.parametrize("kind", BY_GRADIENT)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(kind: str, bad: float) -> None:
    gradient = torch.ones(4, 6)
    gradient[2, 3] = bad
    with pytest.raises(RankscopeError, match=r"a gradient of shape \(4, 6\) holds NaN or infinity"):
        drawn(kind, (4, 6), 2, gradient)


@pytest.mark.parametrize("kind", [*BY_GRADIENT, "unknown"])
@pytest.mark.parametrize("gradient", [None, torch.ones(6, 4)])
def test_a_call_without_the_right_gradient_is_an_error(kind: str, gradient: Tensor | None) -> None:
    with pytest.raises(ValueError, match="needs a gradient of shape"):
        drawn(kind, (4, 6), 2, gradient)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'top' is not a subspace of a gradient"):
        drawn("top", (4, 6), 2, torch.ones(4, 6))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_grad_top_captures_the_share_of_the_largest_values(
    shape: tuple[int, int], rank: int
) -> None:
    values = falling(shape)
    gradient, _ = gradient_of(shape, values)
    energy = [v**2 for v in values]
    best = captured_energy(gradient, drawn("grad_top", shape, rank, gradient))
    assert best == pytest.approx(sum(energy[:rank]) / sum(energy), abs=1e-6)
    for kind in SUBSPACES:
        assert 0 <= captured_energy(gradient, drawn(kind, shape, rank, gradient)) <= best + 1e-6


def test_a_random_subspace_captures_its_share_of_the_dimensions() -> None:
    gradient = torch.randn(200, 60, generator=keyed_generator(3))
    for kind in ("random", "orthogonal"):
        found = captured_energy(gradient, drawn(kind, (200, 60), 15))
        assert found == pytest.approx(15 / 60, abs=0.05)


@pytest.mark.parametrize("factor", [1e-44, 1e30])
def test_captured_energy_depends_on_the_size_of_neither(factor: float) -> None:
    gradient, _ = gradient_of((9, 7), falling((9, 7)))
    a = drawn("random", (9, 7), 3).double()
    expected = captured_energy(gradient, a)
    assert captured_energy(factor * gradient, a) == pytest.approx(expected)
    assert captured_energy(gradient, factor * a) == pytest.approx(expected)


def test_captured_energy_counts_a_direction_once() -> None:
    gradient, _ = gradient_of((9, 7), falling((9, 7)))
    a = drawn("orthogonal", (9, 7), 3)
    mixing = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 5.0], [3.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    assert captured_energy(gradient, mixing @ a) == pytest.approx(captured_energy(gradient, a))


def test_nothing_is_captured_by_or_of_zero() -> None:
    a, gradient = torch.rand(2, 5), torch.rand(4, 5)
    assert captured_energy(torch.zeros(4, 5), a) == 0.0
    assert captured_energy(gradient, torch.zeros(2, 5)) == 0.0
    assert overlap(a, torch.zeros(3, 5)) == 0.0


@pytest.mark.parametrize(("first", "second"), [(3, 3), (2, 4), (4, 1)])
def test_the_overlap_is_the_mean_squared_cosine_of_the_angles(first: int, second: int) -> None:
    basis = orthonormal(12, 8, seed=4).T
    r = min(first, second)
    cosines = torch.linspace(0.1, 0.9, r, dtype=torch.float64)
    turned = cosines[:, None] * basis[:r] + (1 - cosines**2).sqrt()[:, None] * basis[4 : 4 + r]
    a = basis[:first] if first >= second else turned
    b = turned if first >= second else basis[:second]
    assert overlap(a, b) == pytest.approx(cosines.square().mean().item())
    assert overlap(b, 5 * a) == pytest.approx(overlap(a, b))


def test_a_space_overlaps_with_what_contains_it_and_not_with_its_complement() -> None:
    basis = orthonormal(9, 9, seed=5).T
    assert overlap(basis[:2], basis[:5]) == pytest.approx(1.0)
    assert overlap(basis[:4], basis[4:]) == pytest.approx(0.0, abs=1e-12)


def test_two_random_spaces_overlap_in_their_share_of_the_dimensions() -> None:
    a, b = (drawn("random", (4, 400), rank, seed=rank) for rank in (40, 80))
    assert overlap(a, b) == pytest.approx(80 / 400, abs=0.02)
