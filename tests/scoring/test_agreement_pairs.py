"""The built-in pairs, judged by rules of English that share nothing with the grammar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rankscope.errors import WrongSettingError
from rankscope.evaluation.benchmark import benchmarks_of
from rankscope.evaluation.evaluate_question import EvaluateQuestion
from rankscope.evaluation.text_sets import text_sets
from rankscope.scoring.accuracy import accuracy_measures
from rankscope.scoring.agreement import agreement_digest, agreement_pairs

PAIRS = agreement_pairs()
UIDS = [paradigm.uid for paradigm in PAIRS.paradigms]
IRREGULAR = {"men", "women", "children"}


def words(sentence: str) -> list[str]:
    return sentence.removesuffix(".").split()


def differing(good: str, bad: str) -> int:
    """Place of the one word that differs."""
    places = [i for i, (a, b) in enumerate(zip(words(good), words(bad), strict=True)) if a != b]
    assert len(places) == 1
    return places[0]


def is_plural(noun: str) -> bool:
    return noun in IRREGULAR or noun.endswith("s")


def is_plural_verb(verb: str) -> bool:
    return not verb.endswith("s")


def agrees(sentence: str, uid: str, at: int) -> bool:
    """Whether the word at this place has the number that English asks of it."""
    told = words(sentence)
    if uid.startswith("determiner"):
        return (told[2] in ("these", "those")) == is_plural(told[at])
    if uid == "reflexive":
        return is_plural(told[1]) == (told[at] == "themselves")
    return is_plural(told[1]) == is_plural_verb(told[at])


def paradigm_pairs(uid: str) -> list[tuple[str, str]]:
    counts = [paradigm.count for paradigm in PAIRS.paradigms]
    start = sum(counts[: UIDS.index(uid)])
    return list(PAIRS.pairs[start : start + counts[UIDS.index(uid)]])


def accuracies(score: Callable[[str], float], *, pairs: int | None = None) -> dict[str, float]:
    chosen = agreement_pairs(pairs=pairs)
    differences = np.array([score(good) - score(bad) for good, bad in chosen.pairs])
    measures = accuracy_measures(differences, chosen.paradigms)
    return {
        m.group.removeprefix("uid:"): m.value
        for m in measures
        if m.group.startswith("uid:") and m.metric == "accuracy"
    }


@pytest.mark.parametrize("uid", UIDS)
def test_the_good_sentence_agrees_and_the_bad_one_does_not(uid: str) -> None:
    for good, bad in paradigm_pairs(uid):
        at = differing(good, bad)
        assert agrees(good, uid, at)
        assert not agrees(bad, uid, at)
        if uid == "subject_verb_clause":  # The baker that the men know sings.
            noun, verb = words(good)[4:6]
            assert is_plural(noun) == is_plural_verb(verb) != is_plural(words(good)[1])


@pytest.mark.parametrize("pairs", [None, 10])
def test_frequencies_of_words_and_lengths_are_right_in_exactly_half(pairs: int | None) -> None:
    """Each word that is right in one pair is wrong in another, however many pairs are taken."""
    rng = np.random.default_rng(1)
    frequency: dict[str, float] = {}

    def unigram(sentence: str) -> float:
        return sum(frequency.setdefault(word, float(rng.normal())) for word in words(sentence))

    assert set(accuracies(unigram, pairs=pairs).values()) == {0.5}
    assert set(accuracies(lambda sentence: -float(len(sentence)), pairs=pairs).values()) == {0.5}


def test_agreement_with_the_nearest_noun_is_wrong_wherever_something_stands_between() -> None:
    def nearest(sentence: str) -> float:
        told = words(sentence)
        openings = ("The", "the", "Our", "Your")
        nouns = [noun for before, noun in pairwise(told) if before in openings]
        return float(is_plural(["", *nouns][-1]) == is_plural_verb(told[_verb(told)]))

    found = accuracies(nearest)
    assert found["subject_verb"] == 1
    assert found["subject_verb_phrase"] == found["subject_verb_clause"] == 0


def _verb(told: list[str]) -> int:
    """Place of the verb: the last word, but for those of two words."""
    return len(told) - 1 - (told[-1] in ("late", "asleep", "left"))


def test_pronouns_go_with_one_gender_per_noun() -> None:
    forms = {(words(good)[1], words(good)[-1]) for good, _ in paradigm_pairs("reflexive")}
    singular = [(noun, pronoun) for noun, pronoun in forms if pronoun != "themselves"]
    assert max(Counter(noun for noun, _ in singular).values()) == 1
    assert {pronoun for _, pronoun in singular} == {"himself", "herself"}


def test_there_are_two_hundred_different_pairs_of_short_sentences_in_each_paradigm() -> None:
    assert [paradigm.count for paradigm in PAIRS.paradigms] == [200] * 6
    assert len(set(PAIRS.pairs)) == 1200
    assert max(len(sentence.encode()) for pair in PAIRS.pairs for sentence in pair) < 64
    for uid in UIDS:  # no word to be learned makes up a paradigm
        last = Counter(words(good)[differing(good, bad)] for good, bad in paradigm_pairs(uid))
        most = 100 if uid == "reflexive" else 40
        assert max(last.values()) <= most


def test_fewer_pairs_are_the_first_of_each_paradigm_and_the_digest_is_of_all() -> None:
    few = agreement_pairs(pairs=2)
    assert [paradigm.count for paradigm in few.paradigms] == [2] * 6
    assert few.pairs[:2] == PAIRS.pairs[:2]
    assert few.pairs[2:4] == PAIRS.pairs[200:202]
    assert agreement_digest() == agreement_digest()


def test_it_is_a_task_of_its_own_that_takes_no_file(tmp_path: Path) -> None:
    (tmp_path / "agreement.txt").write_text("It was a bright cold day.")
    with pytest.raises(WrongSettingError, match="cannot be called 'agreement'"):
        text_sets([str(tmp_path / "agreement.txt")])
    (benchmark,) = benchmarks_of(EvaluateQuestion(paths=(), agreement=True, pairs=3))
    benchmark.open()
    assert benchmark.name == "agreement"
    with pytest.raises(WrongSettingError, match="or `agreement`"):
        benchmarks_of(EvaluateQuestion(paths=()))
