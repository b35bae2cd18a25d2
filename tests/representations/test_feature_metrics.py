import mpmath
import numpy as np
import pytest
from scipy import stats

from rankscope.representations.feature_metrics import FEATURE_COLUMNS, measure_features
from rankscope.representations.feature_spectrum import feature_spectrum
from rankscope.representations.feature_sums import FeatureSums, merged
from rankscope.representations.power_law import power_law
from rankscope.representations.sensitivities import FEATURE_METRICS, sensitive_metrics
from tests.representations.made import Features, in_blocks, made, power
from tests.spectra.gallery import rounded


def row_of(features: Features, *, bits: int = 53, blocks: int = 16) -> dict[str, float]:
    return measure_features(in_blocks(features, blocks), bits=bits).row()  # type: ignore[return-value]


def naive(features: Features) -> dict[str, float]:
    """The definitions, on all features at once and by an SVD."""
    s = np.linalg.svd(features, compute_uv=False)
    p = s / s.sum()
    rank = np.exp(-(p * np.log(p)).sum())
    i = np.arange(12, min(len(s), 100) + 1)
    slope = np.polyfit(np.log(i), np.log(s[i - 1] ** 2), 1, w=i**-0.5)[0] if len(i) > 9 else np.nan
    return {
        "rankme": rank,
        "per": rank / min(features.shape),
        "alpha_req": -slope,
        "stable_rank": (s**2).sum() / s[0] ** 2,
        "participation_ratio": (s**2).sum() ** 2 / (s**4).sum(),
    }


def test_every_number_is_that_of_its_definition() -> None:
    x = made(power(24, 1), 200, mean=0.3, seed=3)
    found = row_of(x)
    for suffix, features in (("", x), ("_centred", x - x.mean(axis=0))):
        for name, value in naive(features).items():
            assert found[name + suffix] == pytest.approx(value, rel=1e-9)
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    cosines = unit @ unit.T
    assert found["mean_cosine"] == pytest.approx(cosines[~np.eye(200, dtype=bool)].mean())
    assert found["mean_norm"] == pytest.approx(np.linalg.norm(x, axis=1).mean())
    assert set(found) == set(FEATURE_COLUMNS)
    assert not [name for name, value in found.items() if value != value]


def test_a_prescribed_spectrum_has_the_rank_that_mpmath_gives() -> None:
    s = [mpmath.mpf(2) ** -k for k in range(8)]
    p = [value / mpmath.fsum(s) for value in s]
    rank = mpmath.exp(-mpmath.fsum(x * mpmath.log(x) for x in p))
    x = made(np.array(s, np.float64), 64, mean=5)
    assert row_of(x)["rankme_centred"] == pytest.approx(float(rank), rel=1e-9)


def test_singular_values_count_and_not_eigenvalues() -> None:
    """The entropy of the eigenvalues' shares, which some scripts call RankMe, is another number."""
    s = power(16, 2)
    share = s**2 / (s**2).sum()
    other = np.exp(-(share * np.log(share)).sum())
    assert row_of(made(s, 128))["rankme_centred"] > 2 * other


def test_rotation_scale_and_order_of_tokens_change_nothing() -> None:
    x = made(power(24, 1), 192, mean=0.2)
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(24, 24)))[0]
    blocks = np.array_split(x, 16)
    changed = [1e3 * rng.permutation(block) @ rotation for block in reversed(blocks)]
    before = row_of(x)
    after = measure_features([FeatureSums.of(block) for block in changed], bits=53).row()
    for name, value in before.items():
        if name == "noise_floor" or name.endswith("_error"):
            continue  # in units of the features, and bounds that depend on the axes
        if name.startswith("mean_norm"):
            assert after[name] == pytest.approx(1e3 * value)
        elif name != "status":
            assert after[name] == pytest.approx(value, rel=1e-6), name


def test_derivatives_are_those_of_finite_differences() -> None:
    sums = merged(in_blocks(made(power(24, 1), 200, mean=0.3)))
    spectrum = feature_spectrum(sums, centred=False, bits=53)
    fit = power_law(spectrum.eigenvalues, most=spectrum.resolved)
    metrics = sensitive_metrics(spectrum, fit, tokens=200)
    rng = np.random.default_rng(2)
    change = rng.normal(size=(24, 24))
    change = (change + change.T) * 1e-9
    for sign in (1, -1):
        moved = np.linalg.eigvalsh(sums.about(0.0) + sign * change)[::-1]
        s = np.sqrt(moved)
        values = naive(np.diag(s))
        for name in FEATURE_METRICS:
            if name == "per":
                continue
            value, derivative = metrics[name]
            expected = ((spectrum.vectors * derivative) @ spectrum.vectors.T * sign * change).sum()
            found = values[name] - value if name == "alpha_req" else np.log(values[name] / value)
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-12), name


def test_the_interval_is_about_that_of_leaving_blocks_out() -> None:
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=(80, 24)) * power(24, 1) + 0.1 for _ in range(16)]
    found = measure_features([FeatureSums.of(part) for part in parts], bits=53).row()
    for suffix in ("", "_centred"):
        for name in FEATURE_METRICS:
            without = []
            for left_out in range(16):
                x = np.concatenate([part for i, part in enumerate(parts) if i != left_out])
                value = naive(x - x.mean(axis=0) if suffix else x)[name]
                without.append(value if name == "alpha_req" else np.log(value))
            half = stats.t.ppf(0.975, 15) * np.sqrt(
                15 / 16 * ((without - np.mean(without)) ** 2).sum()
            )
            low, high = (float(found[f"{name}{suffix}_{end}"]) for end in ("low", "high"))
            mine = (high - low) / 2 if name == "alpha_req" else np.log(high / low) / 2
            assert mine == pytest.approx(half, rel=0.3), name + suffix


def test_rounding_to_bfloat16_is_not_counted_as_rank() -> None:
    x = made(np.r_[np.ones(6), np.zeros(18)], 400, mean=2)
    stored = rounded(x, "bfloat16").values
    found = row_of(stored, bits=8)
    assert found["resolved_rank_centred"] == 6 and found["resolved_rank"] == 7
    assert found["rankme_centred_resolved"] == pytest.approx(6, rel=0.01)
    assert found["rankme_centred"] > 6.2  # with the noise in it
    assert np.linalg.norm(stored - x, 2) < found["noise_floor"]
    assert row_of(stored, bits=53)["resolved_rank"] == 24  # had the format not been known
    assert np.isnan(found["alpha_req"])


def test_each_value_is_within_its_interval() -> None:
    x = made(power(12, 6), 64, mean=1e3)
    spectrum = feature_spectrum(merged(in_blocks(x)), centred=True, bits=53)
    exact = x.astype(np.longdouble)
    true = np.linalg.svd((exact - exact.mean(axis=0)).astype(np.float64), compute_uv=False)
    assert (spectrum.lower <= true * (1 + 1e-12)).all()
    assert (true * (1 - 1e-12) <= spectrum.upper).all()


def test_fewer_than_four_tokens_for_each_dimension_give_no_rank() -> None:
    found = measure_features(in_blocks(made(power(24, 1), 95)))
    row = found.row()
    assert found.status == "too-few-tokens"
    assert np.isnan(float(row["rankme"])) and np.isfinite(float(row["mean_cosine"]))
    assert measure_features(in_blocks(made(power(24, 1), 96))).status == "ok"


def test_one_block_has_numbers_without_intervals() -> None:
    found = measure_features([FeatureSums.of(made(power(4, 1), 64)), FeatureSums.empty(4)])
    assert found.status == "one-block"
    assert np.isfinite(found.numbers["rankme"]) and np.isnan(found.numbers["rankme_low"])
    assert np.isnan(found.numbers["mean_cosine_low"])


@pytest.mark.parametrize(
    ("value", "status"), [(np.nan, "nonfinite"), (1e200, "nonfinite"), (0.0, "zero")]
)
def test_features_without_a_number_say_so(value: float, status: str) -> None:
    x = made(power(4, 1), 64)
    x[3:4] = value
    found = measure_features(in_blocks(x if value else 0 * x))
    assert found.status == status and not found.numbers


def test_equal_tokens_have_a_direction_and_no_spread() -> None:
    found = row_of(np.tile([3.0, 4.0], (64, 1)))
    assert found["rankme"] == pytest.approx(1) and found["resolved_rank_centred"] == 0
    assert np.isnan(found["rankme_centred"])
    assert found["mean_cosine"] == pytest.approx(1) and found["mean_norm"] == pytest.approx(5)


def test_a_solver_that_returns_the_diagonal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.linalg, "eigh", lambda m: (np.sort(np.diag(m)), np.eye(len(m))))
    found = measure_features(in_blocks(made(power(4, 1), 64)))
    assert found.status == "no-convergence"
    assert "rankme" not in found.numbers and "mean_norm" in found.numbers


@pytest.mark.slow
@pytest.mark.parametrize(("exponent", "topic"), [(1.0, 0.5), (0.0, 0.0)])
def test_intervals_contain_the_mean_of_other_samples_in_nineteen_of_twenty(
    exponent: float, topic: float
) -> None:
    rng = np.random.default_rng(6)
    rows = []
    for _ in range(200):
        topics = rng.normal(size=(16, 8, 1, 24)) * topic  # what the tokens of a document share
        x = (rng.normal(size=(16, 8, 16, 24)) + topics) * power(24, exponent) + 0.2
        rows.append(measure_features([FeatureSums.of(b.reshape(-1, 24)) for b in x]).row())
    for name in [*FEATURE_METRICS, "rankme_centred", "alpha_req_centred", "mean_norm"]:
        values, low, high = (
            np.array([float(row[name + end]) for row in rows]) for end in ("", "_low", "_high")
        )
        covered = ((low <= values.mean()) & (values.mean() <= high)).mean()
        assert covered >= 0.9, name
