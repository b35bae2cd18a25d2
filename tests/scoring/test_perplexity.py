from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.scoring.perplexity import DocumentScores, perplexity_measures
from rankscope.scoring.text_documents import TextDocument, encode_documents, score_documents
from rankscope.statistics.intervals import Measure, mean_interval, ratio_interval
from tests.scoring.toy_models import (
    BYTES,
    PREFIX,
    bigram_losses,
    bigram_table,
    bytes_of,
    pairs_of,
    toy_model,
    uniform_losses,
)

PALOMA = [
    TextDocument("first text of the first domain", "c4", "a"),
    TextDocument("second text, a longer one", "c4", "a"),
    TextDocument("other domain", "c4", "b"),
    TextDocument("no domain here", "wiki"),
    TextDocument("and none here either", "wiki"),
]


def scores_of(losses: list[float], tokens: list[int], **given: object) -> DocumentScores:
    """Scores of documents of 4 bytes a token and 3 words each, first windows as the whole."""
    n = len(losses)
    whole = DocumentScores(
        losses=np.array(losses, dtype=np.float64),
        tokens=np.array(tokens),
        bytes=4 * np.array(tokens),
        words=np.full(n, 3),
        first_losses=np.array(losses, dtype=np.float64),
        first_tokens=np.array(tokens),
        sources=(None,) * n,
        domains=(None,) * n,
        is_prefixed=True,
    )
    return replace(whole, **given)


def joined(one: DocumentScores, other: DocumentScores) -> DocumentScores:
    def both(name: str) -> object:
        a, b = getattr(one, name), getattr(other, name)
        return np.append(a, b) if isinstance(a, np.ndarray) else a + b

    names = {field.name for field in fields(DocumentScores)} - {"is_prefixed"}
    return DocumentScores(**{name: both(name) for name in names}, is_prefixed=one.is_prefixed)


def table(scores: DocumentScores) -> dict[tuple[str, str], Measure]:
    measures = perplexity_measures(scores)
    found = {(one.group, one.metric): one for one in measures}
    assert len(found) == len(measures)
    return found


def values(scores: DocumentScores, group: str = "all") -> dict[str, float]:
    return {metric: one.value for (of, metric), one in table(scores).items() if of == group}


@pytest.mark.parametrize("window", [2, 5, 100])
@pytest.mark.parametrize("prefix", [PREFIX, None], ids=["prefix", "no-prefix"])
def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(
    window: int, prefix: int | None
) -> None:
    model = toy_model(uniform_losses(300), prefix=prefix, vocab_size=300, window=window)
    found = table(score_documents(model, encode_documents(model.encoder, PALOMA)))
    token_level = ("perplexity", "macro_perplexity", "mean_document_perplexity")
    groups = {"all", "source:c4", "source:wiki", "domain:c4/a", "domain:c4/b"}
    assert {group for group, _ in found} == groups
    for (_, metric), one in found.items():
        if metric in token_level:
            assert one.value == pytest.approx(300)
    assert {(g, m) for g, m in found if m in token_level[::2]} == {
        (g, m) for g in groups for m in token_level[::2]
    }


@pytest.mark.parametrize("encode", [bytes_of, pairs_of], ids=["bytes", "pairs-of-bytes"])
def test_bits_per_byte_do_not_depend_on_the_tokenizer(encode: Callable) -> None:
    """Uniform over bytes: a token of two of them is as likely as they are."""
    vocab_size = PREFIX + 1 + BYTES**2

    def losses(tokens):
        return math.log(BYTES) * (1 + (tokens[:, 1:] > PREFIX).double())

    model = toy_model(losses, encode=encode, vocab_size=vocab_size, window=6)
    found = values(score_documents(model, encode_documents(model.encoder, PALOMA)))
    text = [document.text for document in PALOMA]
    n_bytes, n_words = len("".join(text).encode()), sum(len(one.split()) for one in text)
    assert found["bits_per_byte"] == pytest.approx(8)
    assert found["macro_bits_per_byte"] == pytest.approx(8)
    assert found["byte_perplexity"] == pytest.approx(BYTES)
    assert found["word_perplexity"] == pytest.approx(math.exp(math.log(BYTES) * n_bytes / n_words))
    expected_loss = math.log(BYTES) * n_bytes / sum(map(len, encode(text)))
    assert found["loss"] == pytest.approx(expected_loss)


SETS = st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 40)), min_size=1, max_size=8)


@given(SETS, SETS)
def test_two_sets_together_give_the_token_weighted_mean(
    one: list[tuple[float, int]], other: list[tuple[float, int]]
) -> None:
    a, b = (scores_of(*map(list, zip(*some, strict=True))) for some in (one, other))
    found, first, second = values(joined(a, b)), values(a), values(b)
    for metric, units in (("loss", "tokens"), ("bits_per_byte", "bytes")):
        of_a, of_b = getattr(a, units).sum(), getattr(b, units).sum()
        mean = (first[metric] * of_a + second[metric] * of_b) / (of_a + of_b)
        assert found[metric] == pytest.approx(mean)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert found["byte_perplexity"] == pytest.approx(2 ** found["bits_per_byte"])


def test_intervals_are_those_of_drawing_documents() -> None:
    scores = scores_of([10.0, 30.0, 11.0, 7.0], [5, 12, 4, 3])
    found = table(scores)
    loss = found["all", "loss"]
    assert (loss.ci_low, loss.ci_high) == ratio_interval(scores.losses, scores.tokens.astype(float))
    perplexity = found["all", "perplexity"]
    assert perplexity.ci_low == pytest.approx(math.exp(loss.ci_low))
    assert perplexity.ci_high == pytest.approx(math.exp(loss.ci_high))
    mean = found["all", "mean_document_perplexity"]
    each = np.exp(scores.losses / scores.tokens)
    assert (mean.ci_low, mean.ci_high) == pytest.approx(mean_interval(each))
    for one in found.values():
        assert one.ci_low < one.value < one.ci_high
        assert one.n == 4


def test_a_single_document_has_no_interval() -> None:
    found = table(scores_of([10.0], [5]))
    assert found["all", "perplexity"].value == pytest.approx(math.exp(2))
    assert all(math.isnan(one.ci_low) and math.isnan(one.ci_high) for one in found.values())


@pytest.mark.parametrize("window", [3, 6, 64])
@pytest.mark.parametrize("prefix", [PREFIX, None], ids=["prefix", "no-prefix"])
def test_the_mean_of_document_perplexities_is_that_of_the_study(
    window: int, prefix: int | None
) -> None:
    likelihoods = bigram_table()
    model = toy_model(bigram_losses(likelihoods), prefix=prefix, window=window)
    documents = [*PALOMA, TextDocument("x")]  # a single token is no document of theirs
    perplexities = []
    for document in documents:
        ids = list(document.text.encode())[:window]
        if len(ids) >= 2:
            losses = [likelihoods[ids[i - 1], ids[i]] for i in range(1, len(ids))]
            perplexities.append(math.exp(sum(losses) / len(losses)))
    found = table(score_documents(model, encode_documents(model.encoder, documents)))
    one = found["all", "mean_document_perplexity"]
    assert one.value == pytest.approx(sum(perplexities) / len(perplexities))
    assert one.n == len(PALOMA)


def test_macro_means_weigh_domains_alike_then_sources_alike() -> None:
    scores = scores_of(
        [1.0, 2.0, 3.0, 4.0, 9.0],
        [1, 2, 2, 1, 3],
        sources=("c4", "c4", "c4", "wiki", None),
        domains=("a", "a", "b", None, None),
    )
    found = table(scores)
    a, b, wiki = math.exp(3 / 3), math.exp(3 / 2), math.exp(4)
    assert found["domain:c4/a", "perplexity"].value == pytest.approx(a)
    assert found["source:c4", "perplexity"].value == pytest.approx(math.exp(6 / 5))
    assert found["source:c4", "macro_perplexity"].value == pytest.approx((a + b) / 2)
    assert found["all", "macro_perplexity"].value == pytest.approx(((a + b) / 2 + wiki) / 2)
    assert found["all", "perplexity"].value == pytest.approx(math.exp(19 / 9))
    bits = ((3 / 12 + 3 / 8) / 2 + 4 / 4) / 2 / math.log(2)
    assert found["all", "macro_bits_per_byte"].value == pytest.approx(bits)
    # A macro mean is of documents that have a part; the perplexity is of all.
    assert found["all", "macro_perplexity"].n == 4
    assert found["all", "perplexity"].n == 5
    # The single documents of b and wiki leave it without an interval.
    assert math.isnan(found["all", "macro_perplexity"].ci_low)
    assert {group for group, _ in found} == {
        *("all", "source:c4", "source:wiki", "domain:c4/a", "domain:c4/b"),
    }


def test_one_source_of_two_domains_has_a_macro_mean() -> None:
    found = table(scores_of([1.0, 2.0], [1, 1], sources=("c4", "c4"), domains=("a", "b")))
    mean = (math.exp(1) + math.exp(2)) / 2
    assert found["all", "macro_perplexity"].value == pytest.approx(mean)


def test_half_widths_of_a_macro_mean_add_as_squares() -> None:
    scores = scores_of([1.0, 2.0, 6.0, 4.0], [1, 1, 2, 2], sources=("a", "a", "b", "b"))
    found = table(scores)
    halves = [
        (one.ci_high - one.ci_low) / 2
        for one in (found["source:a", "bits_per_byte"], found["source:b", "bits_per_byte"])
    ]
    macro = found["all", "macro_bits_per_byte"]
    assert macro.ci_high - macro.value == pytest.approx(math.hypot(*halves) / 2)
    assert macro.value - macro.ci_low == pytest.approx(math.hypot(*halves) / 2)


@pytest.mark.parametrize(
    ("sources", "domains"),
    [((None, None), (None, None)), ((None, None), ("a", "b")), (("s", "s"), ("a", "a"))],
    ids=["nothing", "domains-without-source", "one-domain"],
)
def test_there_is_no_macro_mean_of_a_single_part(sources: tuple, domains: tuple) -> None:
    found = table(scores_of([1.0, 2.0], [1, 1], sources=sources, domains=domains))
    assert not any(metric.startswith("macro") for _, metric in found)


def test_documents_that_name_nothing_give_one_group() -> None:
    assert {group for group, _ in table(scores_of([1.0, 2.0], [1, 1]))} == {"all"}


def test_groups_come_in_one_order_whatever_that_of_the_documents() -> None:
    scores = scores_of([1.0, 2.0, 3.0], [1, 1, 1], sources=("b", "a", "a"), domains=("x", "z", "y"))
    groups = list(dict.fromkeys(one.group for one in perplexity_measures(scores)))
    assert groups == ["all", *("source:a", "domain:a/y", "domain:a/z"), "source:b", "domain:b/x"]


def test_without_a_prefix_nothing_is_said_per_byte_or_word() -> None:
    scores = scores_of([1.0, 2.0], [1, 2], is_prefixed=False, sources=("a", "b"))
    found = {metric for _, metric in table(scores)}
    assert found == {"loss", "perplexity", "mean_document_perplexity", "macro_perplexity"}


def test_text_without_words_has_no_word_perplexity() -> None:
    scores = scores_of([1.0, 2.0], [1, 2], words=np.array([0, 5]), sources=("blank", "text"))
    found = table(scores)
    assert ("source:blank", "word_perplexity") not in found
    assert found["source:text", "word_perplexity"].value == pytest.approx(math.exp(2 / 5))
    assert found["all", "word_perplexity"].value == pytest.approx(math.exp(3 / 5))


def test_documents_without_a_scored_token_do_not_count() -> None:
    with_one = scores_of([1.0, 0.0, 2.0], [2, 0, 1], sources=("a", "b", "a"), is_prefixed=False)
    without = scores_of([1.0, 2.0], [2, 1], sources=("a", "a"), is_prefixed=False)
    assert perplexity_measures(with_one) == perplexity_measures(without)
    assert perplexity_measures(scores_of([0.0], [0], is_prefixed=False)) == []


def test_without_first_windows_the_studys_number_is_left_out() -> None:
    scores = scores_of([1.0, 2.0], [1, 2], first_losses=None, first_tokens=None)
    assert "mean_document_perplexity" not in values(scores)


@pytest.mark.parametrize("loss", [1e4, 1e200, math.inf], ids=str)
def test_the_exponential_of_a_large_loss_is_infinite(loss: float) -> None:
    found = values(scores_of([loss, 1.0, 1.0], [1, 1, 1], sources=("a", "b", "b")))
    for metric in ("perplexity", "mean_document_perplexity", "macro_perplexity"):
        assert found[metric] == math.inf
    assert found["loss"] == pytest.approx(loss / 3, rel=1e-3)


def test_nan_stays_nan_and_only_in_its_groups() -> None:
    scores = scores_of([math.nan, 1.0, 2.0], [1, 1, 1], sources=("a", "b", "b"))
    for (group, _), one in table(scores).items():
        assert math.isnan(one.value) == math.isnan(one.ci_low) == (group != "source:b")


def test_numbers_from_scores_need_no_torch() -> None:
    code = (
        "import rankscope.scoring.perplexity, rankscope.scoring.text_documents, sys;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
