from itertools import permutations

import numpy as np
import pytest

from rankscope.errors import WrongSettingError
from rankscope.representations.cka import KernelSums
from rankscope.representations.probe import SIMILARITY_COLUMNS, ProbeFeatures, similarity
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


def u_statistic(x: Features, y: Features) -> float:
    """The definition of the U-statistic of HSIC: a mean over all tuples of four tokens."""
    k, ell = x @ x.T, y @ y.T
    return float(
        np.mean(
            [
                k[i, j] * (ell[i, j] + ell[q, r] - 2 * ell[i, q])
                for i, j, q, r in permutations(range(len(x)), 4)
            ]
        )
    )


def probe(x: Features, blocks: int = 8) -> ProbeFeatures:
    return ProbeFeatures.of(x, np.arange(len(x)) * blocks // len(x), bits=53)


def row(x: Features, y: Features, blocks: int = 8) -> dict[str, float]:
    return similarity(probe(x, blocks), probe(y, blocks)).row()  # type: ignore[return-value]


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_both_are_those_of_the_kernels(shared: float) -> None:
    x, y = two(shared=shared)
    found = row(x, y)
    assert found["cka"] == pytest.approx(unbiased(x, y), rel=1e-9)
    assert found["cka_biased"] == pytest.approx(biased(x, y), rel=1e-9)
    assert set(found) == set(SIMILARITY_COLUMNS)


def test_hsic_is_the_mean_over_all_tuples_of_four_tokens() -> None:
    x, y = two(7)
    sums = KernelSums.of(x, y)  # about any origin
    assert sums.unbiased_hsic() / (7 * 4) == pytest.approx(u_statistic(x, y), rel=1e-9)


def test_leaving_tokens_out_is_a_subtraction() -> None:
    x, y = two()
    rest = KernelSums.of(x, y) - KernelSums.of(x[:9], y[:9])
    again = KernelSums.of(x[9:], y[9:])
    assert rest.unbiased_hsic() == pytest.approx(again.unbiased_hsic(), rel=1e-10)
    assert rest.biased_hsic() == pytest.approx(again.biased_hsic(), rel=1e-10)


def test_the_interval_is_that_of_leaving_blocks_out() -> None:
    from scipy import stats

    x, y = two(80)
    found = row(x, y)
    without = np.array(
        [unbiased(np.delete(x, np.s_[i : i + 10], 0), np.delete(y, np.s_[i : i + 10], 0))
         for i in range(0, 80, 10)]
    )  # fmt: skip
    half = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * ((without - without.mean()) ** 2).sum())
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
def test_the_interval_of_independent_features_contains_zero_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(4)
    inside = 0
    for _ in range(400):
        x, y = (probe(z * power(8, 1), 16) for z in rng.normal(size=(2, 160, 8)))
        numbers = similarity(x, y, canonical=False).numbers
        inside += numbers["cka_low"] <= 0 <= numbers["cka_high"]
    assert inside >= 0.95 * 400


def test_features_without_a_number_say_so() -> None:
    x, y = two()
    assert similarity(probe(x), probe(np.full((40, 2), 3.1))).status == "constant"
    assert similarity(probe(x[:3]), probe(y[:3])).status == "too-few-tokens"
    y[3, 3] = np.nan
    found = similarity(probe(x), probe(y))
    assert found.status == "nonfinite" and np.isnan(float(found.row()["cka"]))


def test_one_block_has_numbers_without_an_interval() -> None:
    x, y = two()
    found = similarity(probe(x, 1), probe(y, 1))
    assert found.status == "one-block"
    assert found.numbers["cka"] == pytest.approx(unbiased(x, y))
    assert np.isnan(found.numbers["cka_low"])


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
