from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.scoring import text_documents as documents_module
from rankscope.scoring.document_spans import Cut
from rankscope.scoring.text_documents import TextDocument, encode_documents, score_documents
from rankscope.scoring.text_model import TextModel
from tests.scoring.toy_models import (
    PREFIX,
    bigram_losses,
    bigram_table,
    bytes_of,
    context_losses,
    toy_model,
)

TEXTS = ["b", "some words", "é — ü\n", "a text that is longer than all the others of them", "no"]
DOCUMENTS = [TextDocument(text) for text in TEXTS]
CUTS = [(8, None), (8, 1), (8, 3), (3, 3), (1, 1), (None, None)]
cuts = pytest.mark.parametrize(("window", "stride"), CUTS, ids=str)
prefixes = pytest.mark.parametrize("prefix", [PREFIX, None], ids=["prefix", "no-prefix"])


def test_a_document_keeps_its_size_and_where_it_comes_from() -> None:
    given = [
        TextDocument(" é  ü ", "s", "d"),
        TextDocument("", "s"),
        TextDocument("one two"),
        TextDocument("\n"),
    ]
    encoded = encode_documents(toy_model(context_losses).encoder, given)
    assert [ids.tolist() for ids in encoded.ids] == bytes_of([" é  ü ", "one two", "\n"])
    assert encoded.bytes.tolist() == [8, 7, 1]
    assert encoded.words.tolist() == [2, 2, 0]
    assert encoded.sources == ("s", None, None)
    assert encoded.domains == ("d", None, None)
    assert encoded.left_out == 1


@pytest.mark.parametrize("given", [[], [TextDocument(""), TextDocument("")]], ids=["none", "empty"])
def test_documents_without_any_token_are_refused(given: list[TextDocument]) -> None:
    with pytest.raises(RankscopeError, match=f"none of {len(given)} documents"):
        encode_documents(toy_model(context_losses).encoder, given)


def test_texts_are_encoded_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()
    encoder = replace(
        toy_model(context_losses).encoder,
        encode=lambda texts: calls.append(len(texts)) or bytes_of(texts),
    )
    monkeypatch.setattr(documents_module, "CHARACTERS_AT_ONCE", 60)
    monkeypatch.setattr(documents_module, "DOCUMENTS_AT_ONCE", 3)
    encoded = encode_documents(encoder, iter(DOCUMENTS * 2))
    assert [ids.tolist() for ids in encoded.ids] == bytes_of(TEXTS * 2)
    assert max(calls) == 3


@prefixes
@cuts
def test_a_bigram_loss_does_not_depend_on_the_cut(
    window: int | None, stride: int | None, prefix: int | None
) -> None:
    table = bigram_table()
    model = toy_model(bigram_losses(table), prefix=prefix)
    scores = score_documents(model, encode_documents(model.encoder, DOCUMENTS), Cut(window, stride))
    for text, loss, tokens in zip(TEXTS, scores.losses, scores.tokens, strict=True):
        ids = [PREFIX] * (prefix is not None) + list(text.encode())
        assert tokens == len(ids) - 1
        assert loss == pytest.approx(sum(table[a, b] for a, b in itertools.pairwise(ids)))
    assert scores.is_prefixed == (prefix is not None)


@prefixes
@pytest.mark.parametrize("window", [2, 5, 8])
def test_the_first_window_is_scored_by_itself(window: int, prefix: int | None) -> None:
    table = bigram_table()
    model = toy_model(bigram_losses(table), prefix=prefix)
    scores = score_documents(model, encode_documents(model.encoder, DOCUMENTS), Cut(window))
    assert scores.first_losses is not None and scores.first_tokens is not None
    for number, text in enumerate(TEXTS):
        ids = text.encode()[:window]
        loss = 0.0
        for place in range(1, len(ids)):
            loss += table[ids[place - 1], ids[place]]
        assert scores.first_losses[number] == pytest.approx(loss)
        assert scores.first_tokens[number] == len(ids) - 1


@prefixes
@cuts
def test_neither_batches_nor_groups_matter(
    monkeypatch: pytest.MonkeyPatch, window: int | None, stride: int | None, prefix: int | None
) -> None:
    def scored(tokens_at_once: int, group: int) -> list[np.ndarray]:
        monkeypatch.setattr(documents_module, "TOKENS_AT_ONCE", group)
        model = toy_model(context_losses, prefix=prefix, tokens_at_once=tokens_at_once)
        encoded = encode_documents(model.encoder, DOCUMENTS)
        scores = score_documents(model, encoded, Cut(window, stride))
        return [scores.losses, scores.first_losses]

    wanted = scored(10_000, 10_000)
    for tokens_at_once, group in [(1, 10_000), (10_000, 1), (13, 12), (1, 1)]:
        np.testing.assert_array_equal(scored(tokens_at_once, group), wanted)


def test_documents_do_not_see_each_other() -> None:
    model = toy_model(context_losses)
    together = score_documents(model, encode_documents(model.encoder, DOCUMENTS))
    for number, document in enumerate(DOCUMENTS):
        alone = score_documents(model, encode_documents(model.encoder, [document]))
        assert alone.losses[0] == together.losses[number]


def counting(prefix: int | None) -> tuple[TextModel, list[int]]:
    """A model, and how many tokens each batch of it has scored."""
    counts = list[int]()
    model = toy_model(context_losses, prefix=prefix)

    def losses(tokens: Tensor, counted: Tensor) -> Tensor:
        counts.append(int(counted.sum()))
        return model.token_losses(tokens, counted)

    return replace(model, token_losses=losses), counts


@pytest.mark.parametrize(
    ("prefix", "asked", "passes"), [(None, True, 1), (PREFIX, False, 1), (PREFIX, True, 2)]
)
def test_first_spans_are_scored_only_where_needed(
    prefix: int | None, asked: bool, passes: int
) -> None:
    model, counts = counting(prefix)
    short = [TextDocument("some"), TextDocument("words")]
    scores = score_documents(
        model, encode_documents(model.encoder, short), Cut(document_perplexity=asked)
    )
    assert len(counts) == passes
    assert (scores.first_losses is not None) == (scores.first_tokens is not None) == asked


@cuts
def test_every_token_is_scored_once_and_no_more(window: int | None, stride: int | None) -> None:
    model, counts = counting(PREFIX)
    encoded = encode_documents(model.encoder, DOCUMENTS)
    scores = score_documents(model, encoded, Cut(window, stride, document_perplexity=False))
    assert sum(counts) == scores.tokens.sum() == sum(map(len, encoded.ids))


@prefixes
@pytest.mark.parametrize("group", [1, 30, 10_000])
def test_progress_grows_to_all_of_it(
    monkeypatch: pytest.MonkeyPatch, prefix: int | None, group: int
) -> None:
    monkeypatch.setattr(documents_module, "TOKENS_AT_ONCE", group)
    model = toy_model(context_losses, prefix=prefix, tokens_at_once=16)
    shares = list[float]()
    score_documents(model, encode_documents(model.encoder, DOCUMENTS), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] == pytest.approx(1)


def test_a_document_of_megabytes_is_scored() -> None:
    model = toy_model(
        lambda tokens: torch.ones(tokens[:, 1:].shape), window=2048, tokens_at_once=1 << 18
    )
    text = "word " * (1 << 20)
    scores = score_documents(model, encode_documents(model.encoder, [TextDocument(text)]))
    assert scores.losses[0] == scores.tokens[0] == scores.bytes[0] == len(text)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_model_shows_where_it_breaks(bad: float) -> None:
    def losses(tokens: Tensor) -> Tensor:
        return torch.where(tokens[:, 1:] == ord("b"), bad, 1.0)

    model = toy_model(losses)
    found = score_documents(model, encode_documents(model.encoder, DOCUMENTS)).losses
    for text, loss in zip(TEXTS, found, strict=True):
        assert np.isfinite(loss) == ("b" not in text)


def test_a_window_that_the_model_does_not_take_is_refused() -> None:
    model = toy_model(context_losses, window=8)
    encoded = encode_documents(model.encoder, DOCUMENTS)
    with pytest.raises(RankscopeError, match="`window` is 9 tokens, but the model takes at most 8"):
        score_documents(model, encoded, Cut(9))
    with pytest.raises(WrongSettingError, match="`stride` is 9 tokens and `window` is 8"):
        score_documents(model, encoded, Cut(stride=9))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_more_context_never_hurts_a_model_that_gains_by_it(stride: int) -> None:
    def losses(tokens: Tensor) -> Tensor:
        return (1.0 / torch.arange(1, tokens.shape[1])).expand(len(tokens), -1)

    model = toy_model(losses, window=8)
    encoded = encode_documents(model.encoder, DOCUMENTS)
    fewer = score_documents(model, encoded, Cut(stride=2 * stride)).losses
    more = score_documents(model, encoded, Cut(stride=stride)).losses
    assert (more <= fewer + 1e-9).all()
    assert more.sum() < fewer.sum()
