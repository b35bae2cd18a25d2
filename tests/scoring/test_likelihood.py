from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.scoring.likelihood import span_losses
from rankscope.scoring.text_model import Span, TextEncoder, TextModel, TokenLosses
from rankscope.training.config import ModelConfig
from rankscope.training.model import LanguageModel

VOCABULARY = 11
ENCODER = TextEncoder(lambda texts: [[0] for _ in texts], 0, "BOS <s>", "none")
LOSSES = torch.rand(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(2)).double()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def scorer(token_losses: TokenLosses, *, tokens_at_once: int = 16) -> TextModel:
    return TextModel(token_losses, ENCODER, VOCABULARY, context=64, tokens_at_once=tokens_at_once)


def bigram_losses(tokens: Tensor, counted: Tensor) -> Tensor:
    return LOSSES[tokens[:, :-1], tokens[:, 1:]][counted]


def loss_of(span: Span) -> float:
    places = range(len(span.ids) - span.counted, len(span.ids))
    return sum(LOSSES[span.ids[i - 1], span.ids[i]].item() for i in places)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    ids = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9))
    return Span(ids, draw(st.integers(0, len(ids) - 1)))


@given(st.lists(spans(), max_size=8), st.integers(1, 40))
@settings(deadline=None)
def test_every_span_has_the_sum_over_its_counted_tokens(given: list[Span], tokens: int) -> None:
    found = span_losses(scorer(bigram_losses, tokens_at_once=tokens), given)
    assert found.shape == (len(given),)
    np.testing.assert_allclose(found, [loss_of(span) for span in given], atol=1e-13)


def random_spans(rng: np.random.Generator) -> list[Span]:
    lengths = rng.integers(2, 40, size=25)
    return [
        Span(rng.integers(VOCABULARY, size=length), int(rng.integers(1, length)))
        for length in lengths
    ]


@pytest.fixture
def decoder() -> LanguageModel:
    model = LanguageModel(ModelConfig(initializer_range=0.3), VOCABULARY).eval()
    model.initialise(0)
    return model


@pytest.mark.parametrize("tokens", [1, 50, 300, 10_000])
def test_padding_and_batch_size_do_not_matter(
    decoder: LanguageModel, rng: np.random.Generator, tokens: int
) -> None:
    given = random_spans(rng)
    model = scorer(decoder.token_losses, tokens_at_once=tokens)
    alone = [span_losses(model, [span]).item() for span in given]
    np.testing.assert_allclose(span_losses(model, given), alone, rtol=1e-6, atol=1e-5)


def test_what_is_counted_in_two_parts_is_counted_once(
    decoder: LanguageModel, rng: np.random.Generator
) -> None:
    ids = rng.integers(VOCABULARY, size=20)
    whole, beginning, end = span_losses(
        scorer(decoder.token_losses), [Span(ids, 19), Span(ids[:12], 11), Span(ids, 8)]
    )
    assert beginning + end == pytest.approx(whole, abs=1e-5)


def test_ids_are_a_list_or_any_array() -> None:
    ids = [3, 1, 4, 1, 5]
    given = [Span(ids, 4), Span(np.array(ids, np.uint16), 4), Span(np.array(ids, np.int64), 4)]
    assert len(set(span_losses(scorer(bigram_losses), given).tolist())) == 1


def refuse(tokens: Tensor, counted: Tensor) -> Tensor:
    raise AssertionError("nothing is counted")


def test_what_counts_nothing_costs_nothing() -> None:
    shares: list[float] = []
    nothing = [Span([1, 2, 3], 0), Span([VOCABULARY], 0), Span([], 0)]
    found = span_losses(scorer(refuse), nothing, progress=shares.append)
    assert found.tolist() == [0.0, 0.0, 0.0]
    assert span_losses(scorer(refuse), [], progress=shares.append).shape == (0,)
    assert shares == []


def test_a_batch_is_within_its_tokens_or_a_single_span(rng: np.random.Generator) -> None:
    shapes: list[tuple[int, int]] = []

    def uniform(tokens: Tensor, counted: Tensor) -> Tensor:
        shapes.append((counted.shape[0], counted.shape[1]))
        return torch.full((int(counted.sum()),), math.log(VOCABULARY))

    given = random_spans(rng)
    found = span_losses(scorer(uniform, tokens_at_once=30), given)
    counted = [span.counted for span in given]
    np.testing.assert_allclose(found, np.multiply(counted, math.log(VOCABULARY)), rtol=1e-6)
    assert all(rows * columns <= 30 or rows == 1 for rows, columns in shapes)
    assert sum(rows for rows, _ in shapes) == len(given)


def test_losses_are_summed_in_float64() -> None:
    def losses(tokens: Tensor, counted: Tensor) -> Tensor:
        return torch.tensor([2.0**24, 1.0], dtype=torch.float32)

    [found] = span_losses(scorer(losses), [Span([0, 1, 2], 2)])
    assert found == 2**24 + 1


def test_a_loss_that_is_no_number_stays_with_its_span() -> None:
    def losses(tokens: Tensor, counted: Tensor) -> Tensor:
        return torch.where(tokens[:, 1:] == 7, torch.nan, 1.0)[counted]

    given = [Span([0, 7, 1], 2), Span([0, 1, 7], 1), Span([0, 7, 1], 1), Span([1, 2], 1)]
    np.testing.assert_equal(span_losses(scorer(losses), given), [np.nan, np.nan, 1.0, 1.0])


@pytest.mark.parametrize("ids", [[VOCABULARY, 1, 2], [0, 1, 40]], ids=["context", "counted"])
def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    with pytest.raises(RankscopeError, match=rf"the id {max(ids)}, .* vocabulary has {VOCABULARY}"):
        span_losses(scorer(refuse), [Span([0, VOCABULARY - 1], 1), Span(ids, 1)])


def test_progress_rises_to_one(rng: np.random.Generator) -> None:
    shares: list[float] = []
    span_losses(scorer(bigram_losses), random_spans(rng), progress=shares.append)
    assert all(a < b for a, b in itertools.pairwise(shares))
    assert 0 < shares[0] < 1 == shares[-1]
