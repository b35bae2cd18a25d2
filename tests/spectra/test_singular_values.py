from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.spectra.bounds import Within
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.singular_values import singular_values, spectra, spectrum

SOLVER = np.linalg.eigvalsh
Maker = Callable[[object, tuple[int, int]], np.ndarray]

PRESCRIBED = {
    "flat": np.ones(24),
    "geometric": np.geomspace(1, 1e-6, 24),
    "steep": np.geomspace(1, 1e-14, 24),
    "rank 5": np.concatenate([np.linspace(3, 1, 5), np.zeros(19)]),
}


@pytest.mark.parametrize("s", PRESCRIBED.values(), ids=PRESCRIBED.keys())
@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (24, 24)])
def test_the_intervals_contain_the_prescribed_values(
    s: np.ndarray, shape: tuple[int, int], matrix_with: Maker
) -> None:
    found = spectrum(matrix_with(s, shape))
    made = 100 * 2.0**-53 * s[0]  # what making the matrix in float64 may have moved them by
    assert (found.lower - made <= s).all() and (s <= found.upper + made).all()
    assert (found.lower <= found.values).all() and (found.values <= found.upper).all()


@pytest.mark.parametrize("exponent", [-600, -1000, 0, 600])
def test_no_power_of_two_leaves_the_range(exponent: int, matrix_with: Maker) -> None:
    a = matrix_with(np.linspace(2, 1, 8), (8, 20))
    scaled = spectrum(np.ldexp(a, exponent))
    assert scaled.values == pytest.approx(np.ldexp(spectrum(a).values, exponent), rel=1e-12)
    assert scaled.status == "ok"


def test_subnormal_matrices_and_the_largest_floats_have_a_spectrum() -> None:
    assert singular_values(np.full((3, 2), 5e-324))[0] > 0
    largest = np.finfo(np.float32).max
    found = singular_values(np.full((4, 4), largest, np.float32))
    assert found[0] == pytest.approx(4 * float(largest))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_matrix_and_its_transpose_have_the_same_values(m: int, n: int, seed: int) -> None:
    a = np.random.default_rng(seed).normal(size=(m, n))
    assert singular_values(a) == pytest.approx(singular_values(a.T), rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_product_has_the_values_of_its_dense_form(m: int, n: int, r: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    product = LowRank(rng.normal(size=(m, r)), rng.normal(size=(r, n)))
    found = singular_values(product)
    reference = np.linalg.svd(product.multiplied(), compute_uv=False)
    assert found.shape == (min(m, n, r),)
    assert found == pytest.approx(reference[: found.size], abs=1e-12 * reference[0])


def test_badly_conditioned_factors_keep_their_small_values(matrix_with: Maker) -> None:
    s = np.geomspace(1, 1e-10, 6)
    left, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(40, 6)))
    right, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(60, 6)))
    found = spectrum(LowRank(left * np.sqrt(s), np.sqrt(s)[:, None] * right.T))
    assert found.route == "low-rank"
    assert found.values == pytest.approx(s, rel=1e-4)
    assert (found.lower <= s).all() and (s <= found.upper).all()


def test_a_stack_of_products_gives_one_spectrum_each(rng: np.random.Generator) -> None:
    left, right = rng.normal(size=(5, 12, 3)), rng.normal(size=(5, 3, 14))
    left[2, 0, 0] = np.nan
    found = spectra(LowRank(left, right))
    assert [one.status for one in found] == ["ok", "ok", "nonfinite", "ok", "ok"]
    assert found[4].values == pytest.approx(singular_values(LowRank(left[4], right[4])))


def test_each_product_of_a_stack_is_measured_as_if_it_were_alone(rng: np.random.Generator) -> None:
    left, right = rng.normal(size=(4, 12, 3)), rng.normal(size=(4, 3, 14))
    left[0] *= 2.0**-600
    left[1, 4, 2], right[2, 1, 5] = np.inf, np.nan
    floors, errors = rng.random(4) * 2.0**-600, rng.random(4) * 1e-12
    stack = spectra(LowRank(left, right, floor=floors, error=errors))
    for i, found in enumerate(stack):
        alone = spectrum(LowRank(left[i], right[i], floor=floors[i], error=errors[i]))
        assert found.status == alone.status == ("nonfinite" if i in (1, 2) else "ok")
        assert found.values.tobytes() == alone.values.tobytes()
        assert found.bounds == alone.bounds and isinstance(found.bounds, Within)
        if found.status == "ok":
            assert found.noise_floor == max(floors[i], found.bounds.absolute)
            reference = np.linalg.svd(left[i] @ right[i], compute_uv=False)[:3]
            assert found.values == pytest.approx(reference, rel=1e-12)


def test_a_tiny_product_of_factors_that_are_not_tiny_has_a_spectrum(
    rng: np.random.Generator,
) -> None:
    """Squares of its values are subnormal; the large column of each factor meets zeros."""
    left, right = rng.normal(size=(12, 4)), rng.normal(size=(4, 14))
    left[:, :2] *= 2.0**-266
    right[:2] *= 2.0**-266
    left[:, 2], right[3] = 0.0, 0.0
    found = spectrum(LowRank(left, right))
    s = np.linalg.svd((left * 2.0**266) @ (right * 2.0**266), compute_uv=False) * 2.0**-532
    assert found.status == "ok"
    assert found.values[:2] == pytest.approx(s[:2], rel=1e-12)


@pytest.mark.parametrize(("m", "r", "n"), [(9, 3, 7), (4, 9, 6), (9, 6, 4), (1, 5, 8)])
def test_norms_of_products_need_no_product(
    m: int, r: int, n: int, rng: np.random.Generator
) -> None:
    product = LowRank(rng.normal(size=(2, m, r)), rng.normal(size=(2, r, n)))
    for norm, whole in zip(product.norms(), product.multiplied(), strict=True):
        assert norm.value == pytest.approx(float(np.sqrt((whole**2).sum())), rel=1e-13)


def test_a_product_that_does_not_cap_the_rank_is_multiplied_out(rng: np.random.Generator) -> None:
    found = spectrum(LowRank(rng.normal(size=(6, 9)), rng.normal(size=(9, 8))))
    assert found.route == "gram"
    assert found.max_rank == 6
    assert found.noise_source == "arithmetic"


@pytest.mark.parametrize(
    ("matrix", "status"),
    [
        (np.zeros((3, 4)), "zero"),
        (np.ones((1, 4)), "vector"),
        (np.ones((0, 4)), "empty"),
        (np.full((2, 2), np.inf), "nonfinite"),
        (LowRank(np.zeros((8, 2)), np.ones((2, 8))), "zero"),
        (LowRank(np.ones((8, 0)), np.ones((0, 8))), "empty"),
    ],
)
def test_degenerate_matrices_have_a_status(matrix: object, status: str) -> None:
    assert spectrum(matrix).status == status  # type: ignore[arg-type]


def test_what_has_no_singular_values_is_refused() -> None:
    with pytest.raises(ValueError, match="nonfinite"):
        singular_values([[np.nan, 1.0]])
    with pytest.raises(ValueError, match="two axes"):
        singular_values(np.ones(3))
    with pytest.raises(ValueError, match="stack of 3"):
        spectrum(LowRank(np.ones((3, 4, 2)), np.ones((3, 2, 4))))
    with pytest.raises(ValueError, match="inner dimensions differ"):
        LowRank(np.ones((4, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="2 left factors are stacked, 3 right"):
        LowRank(np.ones((2, 4, 2)), np.ones((3, 2, 4)))


def test_a_well_conditioned_matrix_takes_the_gram_route(rng: np.random.Generator) -> None:
    assert spectrum(rng.normal(size=(20, 80)).astype(np.float32)).route == "gram"


def test_values_that_the_gram_matrix_cannot_place_take_the_svd(matrix_with: Maker) -> None:
    low = matrix_with(np.linspace(2, 1, 4), (20, 80)).astype(np.float32)
    assert spectrum(low).route == "qr-svd"


@pytest.mark.parametrize(
    "fault",
    [
        lambda gram: np.sort(np.diag(gram)),
        lambda gram: np.r_[0.0, SOLVER(gram)[1:]],
        lambda gram: SOLVER(gram) * np.r_[np.ones(len(gram) - 1), -1],
    ],
    ids=["diagonal", "one dropped", "sign flipped"],
)
def test_a_faulty_eigensolver_is_caught(
    fault: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a = rng.normal(size=(10, 30))
    expected = spectrum(a)
    monkeypatch.setattr("numpy.linalg.eigvalsh", fault)
    found = spectrum(a)
    assert found.route == "qr-svd"
    assert found.values == pytest.approx(expected.values, rel=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_a_rank_16_update_has_rank_16_in_every_storage_format(
    dtype: str, rng: np.random.Generator
) -> None:
    update = 0.02 * rng.normal(size=(96, 16)) @ rng.normal(size=(16, 384)) / 20
    reference = np.linalg.svd(update, compute_uv=False)
    stored = update if dtype == "float64" else update.astype(np.float32)
    if dtype == "bfloat16":
        bits = stored.view(np.uint32)
        stored = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    found = spectrum(Dense.stored(stored, dtype))
    assert (found.lower > found.noise_floor).sum() == 16
    assert found.values[15] == pytest.approx(reference[15], rel=1e-2)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_parameter_of_a_model_is_decomposed_as_torch_does(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(12, 7).to(getattr(torch, dtype)))
    wanted = torch.linalg.svdvals(weight.detach().double()).numpy()
    np.testing.assert_allclose(singular_values(weight), wanted, rtol=1e-12)
    product = LowRank(weight[:, :2], weight[:2])
    wanted = torch.linalg.svdvals((weight[:, :2].double() @ weight[:2].double()).detach())
    np.testing.assert_allclose(singular_values(product), wanted.numpy()[:2], rtol=1e-12)
    assert (spectrum(weight).significant_bits == 8) == (dtype == "bfloat16")


def test_a_view_of_a_tensor_that_numpy_does_not_take_is_decomposed() -> None:
    torch = pytest.importorskip("torch")
    pairs = torch.complex(torch.randn(5, 4), torch.randn(5, 4))
    wanted = torch.linalg.svdvals(pairs.imag.double()).numpy()
    np.testing.assert_allclose(singular_values(pairs.conj().imag), wanted, rtol=1e-12)
