from itertools import permutations, product

import numpy as np
import pytest
from scipy import stats

from rankscope.errors import WrongSettingError
from rankscope.representations.cka import BlockKernels
from rankscope.representations.probe_features import (
    SIMILARITY_COLUMNS,
    ProbeFeatures,
    similarity,
)
from tests.representations.made import Features, made, power
from tests.spectra.gallery import rounded


def two(n: int = 40, *, shared: float = 0.5, seed: int = 0) -> tuple[Features, Features]:
    """Features of 5 and 7 dimensions with a mean, which have a part in common."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(n, 7))
    y[:, :5] += shared * x
    return x * power(5, 1) + 0.4, y * power(7, 1) - 1.3


def biased(x: Features, y: Features) -> float:
    """The n×n definition: tr KHLH over the root of tr KHKH·tr LHLH."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, ell = h @ (x @ x.T) @ h, h @ (y @ y.T) @ h
    return np.vdot(k, ell) / (np.linalg.norm(k) * np.linalg.norm(ell))


def centred_u(kernel: Features) -> Features:
    """U-centring of Székely and Rizzo 2014."""
    n = len(kernel)
    kernel = kernel - np.diag(np.diag(kernel))
    rows = kernel.sum(axis=0) / (n - 2)
    centred = kernel - rows - rows[:, None] + kernel.sum() / ((n - 1) * (n - 2))
    return centred - np.diag(np.diag(centred))


def unbiased(x: Features, y: Features) -> float:
    k, ell = centred_u(x @ x.T), centred_u(y @ y.T)
    return np.vdot(k, ell) / (np.linalg.norm(k) * np.linalg.norm(ell))


def by_definition(x: Features, y: Features, blocks: list[list[int]]) -> float:
    """A mean over all tuples of four different blocks, and over the tokens of each."""
    k, ell = x @ x.T, y @ y.T
    tuples = []
    for four in permutations(blocks, 4):
        values = [
            k[i, j] * (ell[i, j] + ell[q, r] - 2 * ell[i, q]) for i, j, q, r in product(*four)
        ]
        tuples.append(np.mean(values))
    return float(np.mean(tuples))


def probe(x: Features, blocks: int = 8) -> ProbeFeatures:
    return ProbeFeatures.of(x, np.arange(len(x)) * blocks // len(x), bits=53)


def row(x: Features, y: Features, blocks: int = 8) -> dict[str, float]:
    return similarity(probe(x, blocks), probe(y, blocks)).row()  # type: ignore[return-value]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_biased_one_is_that_of_the_kernels(shared: float) -> None:
    x, y = two(shared=shared)
    found = row(x, y)
    assert found["cka_biased"] == pytest.approx(biased(x, y), rel=1e-9)
    assert set(found) == set(SIMILARITY_COLUMNS)


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_with_tokens_for_blocks_the_unbiased_one_is_the_usual_one(shared: float) -> None:
    x, y = two(20, shared=shared)
    assert row(x, y, blocks=20)["cka"] == pytest.approx(unbiased(x, y), rel=1e-9)


def test_hsic_is_the_mean_over_all_tuples_of_different_blocks() -> None:
    x, y = two(11)
    blocks = [[0, 1], [2], [3, 4, 5], [6, 7], [8, 9, 10]]
    kernels = BlockKernels.of(x, y, [np.array(block) for block in blocks])  # about any origin
    assert kernels.unbiased()[0] == pytest.approx(by_definition(x, y, blocks), rel=1e-9)
    rest = by_definition(x, y, blocks[:2] + blocks[3:])
    assert kernels.unbiased()[1 + 2] == pytest.approx(rest, rel=1e-9)


def test_the_interval_is_that_of_leaving_blocks_out() -> None:
    x, y = two(80)
    found = row(x, y)
    without = []
    for left_out in range(8):
        blocks = [list(range(10 * i, 10 * i + 10)) for i in range(8) if i != left_out]
        parts = [np.array(block) for block in blocks]
        both, one, other = (
            BlockKernels.of(*z, parts).unbiased()[0] for z in ((x, y), (x, x), (y, y))
        )
        without.append(both / np.sqrt(one * other))
    half = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * ((without - np.mean(without)) ** 2).sum())
    assert found["cka_high"] - found["cka"] == pytest.approx(half, rel=1e-6)
    assert found["cka"] - found["cka_low"] == pytest.approx(half, rel=1e-6)


def test_features_are_like_themselves_turned_scaled_and_moved() -> None:
    x, _ = two()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    for other in (x, 3 * x @ turn, x + 100):
        found = row(x, other)
        for name in ("cka", "cka_low", "cka_high", "cka_biased", "svcca", "pwcca"):
            assert found[name] == pytest.approx(1, abs=1e-9), name


def test_it_is_symmetric_and_the_order_of_tokens_does_not_matter() -> None:
    x, y = two()
    order = np.random.default_rng(2).permutation(len(x))
    found = row(x, y)
    assert row(y, x)["cka"] == pytest.approx(found["cka"])
    blocks = np.arange(40) * 8 // 40
    shuffled = [ProbeFeatures.of(z[order], blocks[order], bits=53) for z in (x, y)]
    for name in ("cka", "cka_low", "cka_biased", "svcca", "pwcca"):
        assert similarity(*shuffled).row()[name] == pytest.approx(found[name])
    assert row(x, y[order])["cka"] < found["cka"] / 2  # unlike a wrong pairing of tokens


def test_few_tokens_make_the_biased_one_large_and_the_unbiased_one_not() -> None:
    rng = np.random.default_rng(3)
    pairs = [rng.normal(size=(2, 32, 24)) for _ in range(100)]
    found = [row(x, y) for x, y in pairs]
    assert np.mean([one["cka_biased"] for one in found]) > 0.35
    mean = np.mean([one["cka"] for one in found])
    error = np.std([one["cka"] for one in found]) / 10
    assert abs(mean) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize("topic", [0.0, 1.0])
def test_the_interval_of_independent_features_contains_zero_in_nineteen_of_twenty(
    topic: float,
) -> None:
    """Also where the tokens of a document are alike, in each set in its own way."""
    rng = np.random.default_rng(4)
    values, inside = [], 0
    for _ in range(400):
        topics = topic * rng.normal(size=(2, 32, 1, 8))
        x, y = (rng.normal(size=(2, 32, 5, 8)) + topics).reshape(2, 160, 8) * power(8, 1)
        numbers = similarity(probe(x, 16), probe(y, 16), canonical=False).numbers
        inside += numbers["cka_low"] <= 0 <= numbers["cka_high"]
        values.append(numbers["cka"])
    assert inside >= 0.95 * 400
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_features_without_a_number_say_so() -> None:
    x, y = two()
    assert similarity(probe(x), probe(np.full((40, 2), 3.1))).status == "constant"
    y[3, 3] = np.nan
    found = similarity(probe(x), probe(y))
    assert found.status == "nonfinite" and np.isnan(float(found.row()["cka"]))


def test_a_spread_of_one_token_is_not_resolved() -> None:
    """Tokens of other blocks have nothing in common with it, so that HSIC is not positive."""
    x, y = two()
    y = np.zeros_like(y)
    y[7] = 1
    found = similarity(probe(x), probe(y))
    assert found.status == "unresolved" and np.isnan(found.numbers["cka"])


def test_few_blocks_have_no_interval_or_no_unbiased_one() -> None:
    x, y = two()
    for blocks, finite in ((3, False), (4, True)):
        found = similarity(probe(x, blocks), probe(y, blocks))
        assert found.status == "too-few-blocks"
        assert np.isfinite(found.numbers["cka"]) == finite and np.isnan(found.numbers["cka_low"])
        assert found.numbers["cka_biased"] == pytest.approx(biased(x, y))
    assert similarity(probe(x, 5), probe(y, 5)).status == "ok"


def test_only_features_of_the_same_tokens_are_compared() -> None:
    x, y = two()
    with pytest.raises(WrongSettingError, match="40 and 39 tokens"):
        similarity(probe(x), probe(y[:39]))
    with pytest.raises(WrongSettingError, match="other blocks"):
        similarity(probe(x, 8), probe(y, 4))
    with pytest.raises(WrongSettingError, match="one block number per token"):
        ProbeFeatures.of(x, np.zeros(3, int))


@pytest.mark.parametrize(("bits", "spread"), [(53, 1e-14), (8, 0.1)])
def test_a_spread_that_rounding_may_have_made_is_none(bits: int, spread: float) -> None:
    x, _ = two()
    y = made(np.full(4, spread), 40, mean=100.0)
    y = rounded(y, "bfloat16").values if bits == 8 else y
    blocks = np.arange(40) // 5
    assert similarity(probe(x), ProbeFeatures.of(y, blocks, bits=bits)).status == "constant"
    wide = made(np.full(4, 1e4 * spread), 40, mean=100.0)
    assert similarity(probe(x), ProbeFeatures.of(wide, blocks, bits=bits)).status == "ok"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_than_four_blocks_give_nothing_and_no_warning(count: int) -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    parts = np.array_split(np.arange(12), count)
    assert np.isnan(BlockKernels.of(x, x, parts).unbiased()).all()
