from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rankscope.keyed import keyed_generator
from rankscope.training.config import BatchConfig
from rankscope.training.data.batches import iter_validation, random_sequences, training_batch
from rankscope.training.data.corpus import Corpus

BATCH = BatchConfig(sequences=6, sequence_length=10)


@pytest.fixture
def corpus() -> Corpus:
    ids = np.arange(1000, dtype=np.uint16)
    return Corpus(ids[:700], ids[700:], vocab_size=1000, end_of_document=None, tokenizer=None)


def test_a_batch_is_a_function_of_seed_and_step(corpus: Corpus) -> None:
    batch = training_batch(corpus, BATCH, seed=1, step=5)
    torch.rand(10)
    assert torch.equal(training_batch(corpus, BATCH, seed=1, step=5), batch)
    assert not torch.equal(training_batch(corpus, BATCH, seed=1, step=6), batch)
    assert not torch.equal(training_batch(corpus, BATCH, seed=2, step=5), batch)


def test_a_batch_holds_whole_sequences_of_the_training_text(corpus: Corpus) -> None:
    batch = training_batch(corpus, BATCH, seed=1, step=0)
    assert batch.shape == (6, 11)
    assert (batch.diff(dim=1) == 1).all()


def test_exactly_the_sequences_of_the_training_text_are_drawn() -> None:
    ids = np.arange(14, dtype=np.uint16)
    corpus = Corpus(ids, ids + 100, vocab_size=200, end_of_document=None, tokenizer=None)
    starts = [
        int(start)
        for step in range(40)
        for start in training_batch(corpus, BATCH, seed=0, step=step)[:, 0]
    ]
    assert set(starts) == {0, 1, 2, 3}


def test_sequences_of_another_generator_are_not_a_batch(corpus: Corpus) -> None:
    probe = random_sequences(corpus, BATCH, 6, keyed_generator(1, "probe"))
    assert torch.equal(random_sequences(corpus, BATCH, 6, keyed_generator(1, "probe")), probe)
    assert not torch.equal(training_batch(corpus, BATCH, seed=1, step=0), probe)


@pytest.mark.parametrize(("wanted", "counted"), [(10_000, 290), (100, 100), (25, 20), (3, 10)])
def test_validation_counts_every_token_once(corpus: Corpus, wanted: int, counted: int) -> None:
    batches = list(iter_validation(corpus, BATCH, wanted))
    targets = torch.cat([batch[:, 1:].flatten() for batch in batches])
    assert targets.tolist() == list(range(701, 701 + counted))
    assert all(len(batch) <= BATCH.sequences for batch in batches)


def test_every_sequence_comes_once_per_epoch(corpus: Corpus) -> None:
    count = 69  # (700 - 1) // 10, so that an epoch ends inside a batch of 6
    batches = [
        training_batch(corpus, BATCH, seed=1, step=step, order="epochs") for step in range(23)
    ]
    starts = torch.cat(batches)[:, 0].tolist()
    first, second = starts[:count], starts[count:]
    assert sorted(first) == sorted(second) == list(range(0, 690, 10))
    assert first != second
    assert all((batch.diff(dim=1) == 1).all() and batch.shape == (6, 11) for batch in batches)


def test_the_order_of_an_epoch_is_a_function_of_the_seed(corpus: Corpus) -> None:
    batch = training_batch(corpus, BATCH, seed=1, step=10**9, order="epochs")
    training_batch(corpus, BATCH, seed=1, step=3, order="epochs")
    assert torch.equal(training_batch(corpus, BATCH, seed=1, step=10**9, order="epochs"), batch)
    other = training_batch(corpus, BATCH, seed=2, step=10**9, order="epochs")
    assert not torch.equal(other, batch)


def test_rows_of_the_right_length_are_sequences(corpus: Corpus) -> None:
    rows = replace(corpus, training=corpus.training[:693], row_tokens=11)
    batches = [training_batch(rows, BATCH, seed=0, step=s, order="epochs") for s in range(21)]
    starts = torch.cat(batches)[:, 0].tolist()
    assert sorted(starts) == sorted([*range(0, 693, 11)] * 2)


def test_a_batch_may_hold_several_epochs_of_a_tiny_corpus() -> None:
    ids = np.arange(21, dtype=np.uint16)
    tiny = Corpus(ids, ids, vocab_size=21, end_of_document=None, tokenizer=None)
    starts = training_batch(tiny, BATCH, seed=0, step=0, order="epochs")[:, 0].tolist()
    assert [sorted(starts[i : i + 2]) for i in (0, 2, 4)] == [[0, 10]] * 3
