from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.scoring.accuracy import accuracy_measures, effective_pairs
from rankscope.scoring.blimp import Paradigm
from rankscope.statistics.intervals import Measure, proportion_interval

PARADIGMS = (
    Paradigm("a", "binding", "syntax", 4),
    Paradigm("b", "binding", "semantics", 2),
    Paradigm("c", "ellipsis", "syntax", 1),
)
DIFFERENCES = np.array([1.0, 2.0, -1.0, 0.5, 0.0, -3.0, 0.25])
SHARES = {"a": 3 / 4, "b": 1 / 4, "c": 1.0}
Rows = dict[tuple[str, str], Measure]


def rows(differences: np.ndarray, paradigms: tuple[Paradigm, ...] = PARADIGMS) -> Rows:
    return {(m.group, m.metric): m for m in accuracy_measures(differences, paradigms)}


def test_rows_go_from_the_whole_to_its_parts() -> None:
    assert list(rows(DIFFERENCES)) == [
        ("all", "accuracy"),
        ("field:semantics", "accuracy"),
        ("field:syntax", "accuracy"),
        ("phenomenon:binding", "accuracy"),
        ("phenomenon:ellipsis", "accuracy"),
        ("uid:a", "accuracy"),
        ("uid:b", "accuracy"),
        ("uid:c", "accuracy"),
        ("all", "ties"),
        ("uid:b", "ties"),
    ]


@pytest.mark.parametrize("uid", SHARES)
def test_ties_count_half_in_a_paradigm(uid: str) -> None:
    measure = rows(DIFFERENCES)[f"uid:{uid}", "accuracy"]
    count = {p.uid: p.count for p in PARADIGMS}[uid]
    interval = proportion_interval(SHARES[uid], count)
    assert measure == Measure(f"uid:{uid}", "accuracy", SHARES[uid], *interval, count)


@pytest.mark.parametrize(
    ("group", "members"),
    [
        ("all", "abc"),
        ("field:syntax", "ac"),
        ("field:semantics", "b"),
        ("phenomenon:binding", "ab"),
        ("phenomenon:ellipsis", "c"),
    ],
)
def test_a_group_is_the_unweighted_mean_over_its_paradigms(group: str, members: str) -> None:
    measure = rows(DIFFERENCES)[group, "accuracy"]
    sizes = [p.count for p in PARADIGMS if p.uid in members]
    assert measure.value == pytest.approx(np.mean([SHARES[uid] for uid in members]), abs=1e-15)
    assert measure.n == sum(sizes)
    pairs = len(sizes) ** 2 / sum(1 / size for size in sizes)
    expected = proportion_interval(measure.value, pairs)
    assert (measure.ci_low, measure.ci_high) == pytest.approx(expected, abs=1e-15)


def test_ties_are_counted_in_all_and_where_there_are_any() -> None:
    found = rows(DIFFERENCES)
    assert (found["all", "ties"].value, found["all", "ties"].n) == (1.0, 7)
    assert (found["uid:b", "ties"].value, found["uid:b", "ties"].n) == (1.0, 2)
    assert math.isnan(found["all", "ties"].ci_low)
    assert rows(np.ones(7))["all", "ties"].value == 0.0


def test_paradigms_of_one_size_average_to_the_mean_over_pairs(rng: np.random.Generator) -> None:
    differences = rng.normal(size=60)
    paradigms = tuple(Paradigm(uid, "", "", 20) for uid in "abc")
    measure = rows(differences, paradigms)["all", "accuracy"]
    share = float((differences > 0).mean())
    assert measure.value == pytest.approx(share, abs=1e-15)
    assert (measure.ci_low, measure.ci_high) == pytest.approx(proportion_interval(share, 60))


def test_only_the_sign_counts(rng: np.random.Generator) -> None:
    assert rows(DIFFERENCES * rng.uniform(0.01, 100, size=7)) == rows(DIFFERENCES)


def test_exchanging_good_and_bad_exchanges_right_and_wrong() -> None:
    exchanged = rows(-DIFFERENCES)
    for (group, metric), measure in rows(DIFFERENCES).items():
        if metric == "accuracy":
            other = exchanged[group, metric]
            assert other.value == pytest.approx(1 - measure.value, abs=1e-15)
            assert other.ci_low == pytest.approx(1 - measure.ci_high, abs=1e-15)


def test_a_broken_model_did_not_choose_wrongly() -> None:
    differences = DIFFERENCES.copy()
    differences[5] = np.nan
    before, found = rows(DIFFERENCES), rows(differences)
    for group in ("all", "field:semantics", "phenomenon:binding", "uid:b"):
        broken = found[group, "accuracy"]
        assert [math.isnan(x) for x in (broken.value, broken.ci_low, broken.ci_high)] == [True] * 3
    for group in ("field:syntax", "phenomenon:ellipsis", "uid:a", "uid:c"):
        assert found[group, "accuracy"] == before[group, "accuracy"]
    assert found["all", "ties"].value == 1.0


def test_an_impossible_sentence_is_a_choice() -> None:
    differences = np.array([np.inf, -np.inf])
    assert rows(differences, (Paradigm("a", "", "", 2),))["uid:a", "accuracy"].value == 0.5


def test_unnamed_phenomena_and_fields_have_no_row() -> None:
    found = rows(np.ones(3), (Paradigm("a", "", "", 2), Paradigm("b", "", "syntax", 1)))
    assert {group for group, _ in found} == {"all", "field:syntax", "uid:a", "uid:b"}


def test_differences_of_another_set_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        accuracy_measures(DIFFERENCES[1:], PARADIGMS)


SIZES = st.lists(st.integers(1, 2000), min_size=1, max_size=70)


@given(SIZES)
def test_paradigms_of_different_sizes_tell_less_than_their_pairs(sizes: list[int]) -> None:
    pairs = effective_pairs(np.array(sizes))
    assert len(sizes) * min(sizes) <= pairs * (1 + 1e-12)
    assert pairs <= sum(sizes) * (1 + 1e-12)


@given(st.integers(1, 2000), st.integers(1, 70))
def test_paradigms_of_one_size_tell_what_their_pairs_do(size: int, number: int) -> None:
    assert effective_pairs(np.full(number, size)) == pytest.approx(size * number, rel=1e-12)


@pytest.mark.parametrize("spread", [0.0, 0.45], ids=["alike", "different"])
def test_the_interval_covers_the_accuracy_as_often_as_stated(spread: float) -> None:
    rng = np.random.default_rng(11)
    difficulties = np.linspace(0.5 - spread, 0.5 + spread, 8)
    paradigms = tuple(Paradigm(str(i), "", "", 40) for i in range(8))
    covered = 0
    for _ in range(400):
        right = rng.random((8, 40)) < difficulties[:, None]
        measure = rows(np.where(right, 1.0, -1.0).ravel(), paradigms)["all", "accuracy"]
        covered += measure.ci_low <= 0.5 <= measure.ci_high
    # Four standard errors of a proportion of 0.95 in 400 trials.
    assert covered / 400 >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / 400)
