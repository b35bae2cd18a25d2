from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankscope.errors import RankscopeError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.data.batches import iter_validation, random_windows, training_batch
from rankscope.training.data.corpus import Corpus
from rankscope.training.data.opening import load_corpus
from rankscope.training.data.tokenizer import byte_tokenizer
from rankscope.training.keyed import keyed_generator

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


def test_a_batch_holds_whole_windows_of_the_training_text(corpus: Corpus) -> None:
    batch = training_batch(corpus, BATCH, seed=1, step=0)
    assert batch.shape == (6, 11)
    assert (batch.diff(dim=1) == 1).all()


def test_every_window_of_the_training_text_can_be_drawn_and_none_of_the_validation() -> None:
    ids = np.arange(14, dtype=np.uint16)
    corpus = Corpus(ids, ids + 100, vocab_size=200, end_of_document=None, tokenizer=None)
    starts = [
        int(start)
        for step in range(40)
        for start in training_batch(corpus, BATCH, seed=0, step=step)[:, 0]
    ]
    assert set(starts) == {0, 1, 2, 3}


def test_windows_of_another_generator_are_no_batch_of_the_training(corpus: Corpus) -> None:
    probe = random_windows(corpus, BATCH, 6, keyed_generator(1, "probe"))
    assert torch.equal(random_windows(corpus, BATCH, 6, keyed_generator(1, "probe")), probe)
    assert not torch.equal(training_batch(corpus, BATCH, seed=1, step=0), probe)


@pytest.mark.parametrize(("wanted", "counted"), [(10_000, 290), (100, 100), (25, 20), (3, 10)])
def test_validation_counts_every_token_once(corpus: Corpus, wanted: int, counted: int) -> None:
    batches = list(iter_validation(corpus, BATCH, wanted))
    targets = torch.cat([batch[:, 1:].flatten() for batch in batches])
    assert targets.tolist() == list(range(701, 701 + counted))
    assert all(len(batch) <= BATCH.sequences for batch in batches)


def test_several_documents_are_held_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [chr(97 + i) * 50 for i in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = load_corpus(DataConfig(source=str(path), validation_fraction=0.1), BATCH)
    assert len(corpus.validation) == 2 * 51
    assert not set(corpus.training.tolist()) & set(corpus.validation.tolist()) - {256}
    assert corpus.vocab_size == 257
    assert corpus.end_of_document == 256


def test_the_end_of_one_document_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("ab" * 500)
    corpus = load_corpus(DataConfig(source=str(path)), BATCH)
    assert (len(corpus.training), len(corpus.validation)) == (951, 50)


def test_byte_pairs_are_learned_from_the_training_documents_alone(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [f"{chr(97 + i)}" * 200 for i in range(10)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = DataConfig(
        source=str(path), tokenizer="bpe", vocab_size=300, validation_fraction=0.1
    )
    corpus = load_corpus(settings, BatchConfig(sequence_length=4))
    assert len(corpus.validation) == 201  # its letter was never paired
    assert corpus.vocab_size <= 300


@pytest.mark.parametrize("dtype", ["<u2", "uint32", "uint8"])
def test_token_files_are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    ids = (np.arange(1000) % 200).astype(dtype)
    path = tmp_path / ("ids.bin" if dtype == "<u2" else "ids.npy")
    if dtype == "<u2":
        ids.tofile(path)
    else:
        np.save(path, ids)
    corpus = load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)
    assert np.array_equal(np.concatenate([corpus.training, corpus.validation]), ids)
    assert corpus.vocab_size == 200


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([1, 300] * 300, dtype=np.uint16), "token id 300, but data.vocab_size = 200"),
        (np.ones((300, 2), dtype=np.uint16), r"uint16 of shape \(300, 2\)"),
        (np.ones(300, dtype=np.float32), "float32"),
        (np.ones(0, dtype=np.uint16), r"shape \(0,\)"),
        (np.ones(100, dtype=np.uint16), "leaves 5 tokens for validation"),
        (np.array(["a"], dtype=object), "cannot be read as token ids"),
    ],
)
def test_a_token_file_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, ids: np.ndarray, message: str
) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, ids, allow_pickle=True)
    with pytest.raises(RankscopeError, match=message):
        load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)


@pytest.mark.parametrize("name", ["missing.bin", "missing.npy", "empty.bin", "broken.npy"])
def test_an_unreadable_token_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if "missing" not in name:
        path.write_bytes(b"" if "empty" in name else b"not numpy")
    with pytest.raises(RankscopeError, match=name):
        load_corpus(DataConfig(source=str(path)), BATCH)


def test_a_header_of_llm_c_is_not_taken_for_tokens(tmp_path: Path) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 400
    path = tmp_path / "train.bin"
    path.write_bytes(header.tobytes() + (np.arange(400) % 200).astype("<u2").tobytes())
    corpus = load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)
    assert np.concatenate([corpus.training, corpus.validation]).tolist() == [*range(200)] * 2


def test_text_may_bring_its_own_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [f"{chr(97 + i)} äö" * 50 for i in range(10)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().to_str())
    theirs = load_corpus(
        DataConfig(source=str(path), tokenizer=str(tmp_path / "tokenizer.json")), BATCH
    )
    ours = load_corpus(DataConfig(source=str(path)), BATCH)
    assert theirs.digest() == ours.digest()
    assert theirs.validation_bytes == ours.validation_bytes == (ours.validation != 256).sum()


def test_every_window_comes_once_an_epoch_whatever_the_batches_are(corpus: Corpus) -> None:
    windows = 69  # (700 - 1) // 10, so that an epoch ends inside a batch of 6
    batches = [
        training_batch(corpus, BATCH, seed=1, step=step, order="epochs") for step in range(23)
    ]
    starts = torch.cat(batches)[:, 0].tolist()
    first, second = starts[:windows], starts[windows:]
    assert sorted(first) == sorted(second) == list(range(0, 690, 10))
    assert first != second
    assert all((batch.diff(dim=1) == 1).all() and batch.shape == (6, 11) for batch in batches)


def test_the_order_of_an_epoch_is_a_function_of_the_seed(corpus: Corpus) -> None:
    batch = training_batch(corpus, BATCH, seed=1, step=10**9, order="epochs")
    training_batch(corpus, BATCH, seed=1, step=3, order="epochs")
    assert torch.equal(training_batch(corpus, BATCH, seed=1, step=10**9, order="epochs"), batch)
    other = training_batch(corpus, BATCH, seed=2, step=10**9, order="epochs")
    assert not torch.equal(other, batch)


def test_rows_of_one_sequence_are_windows_as_they_are(corpus: Corpus) -> None:
    rows = replace(corpus, training=corpus.training[:693], row_tokens=11)
    batches = [training_batch(rows, BATCH, seed=0, step=s, order="epochs") for s in range(21)]
    starts = torch.cat(batches)[:, 0].tolist()
    assert sorted(starts) == sorted([*range(0, 693, 11)] * 2)


def test_a_batch_may_hold_several_epochs_of_a_tiny_corpus() -> None:
    ids = np.arange(21, dtype=np.uint16)
    tiny = Corpus(ids, ids, vocab_size=21, end_of_document=None, tokenizer=None)
    starts = training_batch(tiny, BATCH, seed=0, step=0, order="epochs")[:, 0].tolist()
    assert [sorted(starts[i : i + 2]) for i in (0, 2, 4)] == [[0, 10]] * 3


def test_the_digest_tells_other_tokens_and_another_split_apart(corpus: Corpus) -> None:
    ids = np.concatenate([corpus.training, corpus.validation])
    wider = Corpus(ids[:700].astype(np.uint32), ids[700:].astype(np.uint32), 1000, None, None)
    elsewhere = Corpus(ids[:701], ids[701:], 1000, None, None)
    changed = Corpus(ids[:700] + np.uint16(1), ids[700:], 1000, None, None)
    assert wider.digest() == corpus.digest()
    assert len({c.digest() for c in (corpus, elsewhere, changed)}) == 3


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_the_vocabulary_of_an_id_file_is_the_stated_one_and_not_its_largest_id(
    tmp_path: Path, suffix: str
) -> None:
    ids, path = np.arange(100, dtype="<u2") % 7, tmp_path / f"ids{suffix}"
    ids.tofile(path) if suffix == ".bin" else np.save(path, ids)
    data = DataConfig(source=str(path), vocab_size=50, validation_fraction=0.2)
    assert load_corpus(data, BATCH).vocab_size == 50
