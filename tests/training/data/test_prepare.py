from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.prepare import prepare_tokens
from rankscope.training.data.prepare_settings import PrepareSettings
from rankscope.training.data.token_folder import open_token_folder
from rankscope.training.data.tokenizer import train_bpe

TEXTS = [f"{'äbc'[i % 3]} document {i} " * (4 + i % 5) for i in range(60)]
KillAt = Callable[[int], AbstractContextManager[list[str]]]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def rows(tmp_path: Path, datasets: ModuleType) -> Path:
    ids = np.random.default_rng(0).integers(1000, size=(50, 9))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"input_ids": ids.tolist()}), path, row_group_size=7)
    return path


def documents_of(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of each document, of those to train on and of those held out."""
    opened = open_token_folder(folder)
    ids = np.concatenate([opened.training, opened.validation])
    documents = [part.tolist() for part in np.split(ids, opened.documents[1:-1].astype(int))]
    training = opened.sidecar.training.documents
    return documents[:training], documents[training:]


def stored_tokenizer(folder: Path) -> str:
    path = folder / "tokenizer.json"
    path.write_text(train_bpe(TEXTS[:10], 280).to_str())
    return str(path)


def test_every_document_comes_back_from_its_ids_on_one_side(tmp_path: Path, lines: Path) -> None:
    settings = PrepareSettings(tokenizer="bpe", vocab_size=300, validation_fraction=0.2)
    sidecar = prepare_tokens([str(lines)], tmp_path / "out", settings=settings)
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    training, validation = (
        [tokenizer.decode(ids) for ids in part] for part in documents_of(tmp_path / "out")
    )
    assert sorted(training + validation) == sorted(TEXTS)
    assert training == [text for text in TEXTS if text in training]
    for part, texts in ((sidecar.training, training), (sidecar.validation, validation)):
        assert part.characters == sum(map(len, texts))
        assert part.bytes == sum(len(text.encode()) for text in texts)
    share = sum(map(len, validation)) / sum(map(len, TEXTS))
    assert 0.2 <= share < 0.2 + max(map(len, TEXTS)) / sum(map(len, TEXTS))


@pytest.mark.usefixtures("datasets")
def test_the_folder_does_not_depend_on_the_format(tmp_path: Path, lines: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "docs.parquet", row_group_size=7)
    halves = tmp_path / "halves"
    halves.mkdir()
    stored = lines.read_text().splitlines(keepends=True)
    (halves / "1.jsonl").write_text("".join(stored[:30]))
    (halves / "2.jsonl").write_text("".join(stored[30:]))
    digests = {
        prepare_tokens([str(source)], tmp_path / f"out-{i}").digest
        for i, source in enumerate((lines, tmp_path / "docs.parquet", halves))
    }
    assert len(digests) == 1


def test_byte_pairs_are_learned_from_training_documents_alone(tmp_path: Path) -> None:
    texts = [chr(97 + i) * 200 for i in range(10)]
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = PrepareSettings(tokenizer="bpe", vocab_size=300, validation_fraction=0.1)
    sidecar = prepare_tokens([str(path)], tmp_path / "out", settings=settings)
    assert sidecar.validation.tokens == 201  # its letter was never paired


def test_the_last_part_of_a_single_text_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("ä" * 1000)
    sidecar = prepare_tokens([str(path)], tmp_path / "out")
    assert (sidecar.training.characters, sidecar.validation.characters) == (950, 50)
    assert (sidecar.training.bytes, sidecar.validation.bytes) == (1900, 100)


def test_rows_of_ids_stay_rows(tmp_path: Path, rows: Path) -> None:
    settings = PrepareSettings(vocab_size=1000, validation_fraction=0.1)
    sidecar = prepare_tokens([str(rows)], tmp_path / "out", settings=settings)
    training, validation = documents_of(tmp_path / "out")
    stored = pq.read_table(rows)["input_ids"].to_pylist()
    assert sorted(training + validation) == sorted(stored)
    assert len(validation) == 5
    assert (sidecar.row_tokens, sidecar.tokenizer, sidecar.end_of_document) == (9, None, None)
    assert sidecar.training.bytes is None
    assert open_token_folder(tmp_path / "out").sidecar.row_tokens == 9


def test_ids_are_described_by_the_tokenizer_they_were_made_with(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(stored_tokenizer(tmp_path))
    end = tokenizer.token_to_id("<|endoftext|>")
    ids = [i for text in TEXTS for i in (*tokenizer.encode(text).ids, end)]
    np.array(ids, dtype="<u4").tofile(tmp_path / "ids.npy")
    settings = PrepareSettings(
        tokenizer=str(tmp_path / "tokenizer.json"), dtype="uint32", validation_fraction=0.1
    )
    sidecar = prepare_tokens([str(tmp_path / "ids.npy")], tmp_path / "out", settings=settings)
    assert sidecar.documents == len(TEXTS)
    assert sidecar.end_of_document == end
    assert sidecar.vocab_size == tokenizer.get_vocab_size()
    assert sidecar.row_tokens is None


@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_ids_are_stored_as_narrow_as_the_vocabulary_allows(
    tmp_path: Path, size: int, dtype: str
) -> None:
    ids = np.array([*range(1000), size - 1], dtype="<u4")
    ids.tofile(tmp_path / "ids.bin")
    settings = PrepareSettings(dtype="uint32", vocab_size=size)
    sidecar = prepare_tokens([str(tmp_path / "ids.bin")], tmp_path / "out", settings=settings)
    opened = open_token_folder(tmp_path / "out")
    assert sidecar.dtype == dtype
    assert np.array_equal(np.concatenate([opened.training, opened.validation]), ids)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PrepareSettings(), "state the size of their vocabulary as `vocab_size`"),
        (PrepareSettings(tokenizer="bpe", vocab_size=1000), "`tokenizer` bpe is for text"),
        (PrepareSettings(vocab_size=900), r"rows\.parquet: holds the token id \d+, but .* 900"),
        (
            PrepareSettings(vocab_size=1000, end_of_document="</s>"),
            "`end_of_document` .* is not",
        ),
    ],
)
def test_settings_that_do_not_fit_ids_are_named(
    tmp_path: Path, rows: Path, settings: PrepareSettings, message: str
) -> None:
    with pytest.raises(RankscopeError, match=message):
        prepare_tokens([str(rows)], tmp_path / "out", settings=settings)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (PrepareSettings(vocab_size=300), "`vocab_size` 300 is for token ids and"),
        (PrepareSettings(tokenizer="bpe", end_of_document="7"), "`end_of_document` '7' is for"),
        (PrepareSettings(tokenizer="missing.json"), "missing.json: does not exist"),
        (PrepareSettings(text_key="body"), 'line 1 .*"body"'),
    ],
)
def test_settings_that_do_not_fit_texts_are_named(
    tmp_path: Path, lines: Path, settings: PrepareSettings, message: str
) -> None:
    with pytest.raises(RankscopeError, match=message):
        prepare_tokens([str(lines)], tmp_path / "out", settings=settings)
    assert [path.name for path in tmp_path.iterdir()] == ["docs.jsonl"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer", "words"),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.6),
        ("dtype", "int32"),
        ("vocab_size", 0),
    ],
)
def test_an_impossible_setting_is_named(name: str, value: object) -> None:
    with pytest.raises(WrongSettingError, match=f"`{name}` '?{value}"):
        PrepareSettings(**{name: value})  # type: ignore[arg-type]


def test_texts_and_ids_do_not_mix(tmp_path: Path, lines: Path, rows: Path) -> None:
    with pytest.raises(RankscopeError, match=r"rows\.parquet: .*one is text, the other token ids"):
        prepare_tokens([str(lines), str(rows)], tmp_path / "out")


@pytest.mark.parametrize(("text", "message"), [("", "no document"), ("abc", "too few to hold out")])
def test_too_little_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(RankscopeError, match=message):
        prepare_tokens([str(tmp_path / "a.txt")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_file_or_folder_is_left_alone(tmp_path: Path, lines: Path) -> None:
    for name in ("file", "folder/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(WrongSettingError, match="exists: choose another `out`"):
            prepare_tokens([str(lines)], tmp_path / name.partition("/")[0])
        assert (tmp_path / name).read_text() == "mine"


def test_a_source_that_changes_meanwhile_is_noticed(tmp_path: Path, lines: Path) -> None:
    def grow(share: float, label: str) -> None:
        if "learning" in label:
            lines.write_text(lines.read_text() + '{"text": "more"}\n')

    settings = PrepareSettings(tokenizer="bpe", vocab_size=300)
    with pytest.raises(RankscopeError, match="changed while it was read"):
        prepare_tokens([str(lines)], tmp_path / "out", settings=settings, report=grow)
    assert not (tmp_path / "out").exists()


def test_a_kill_leaves_all_or_nothing_under_the_name(
    tmp_path: Path, lines: Path, kill_at: KillAt
) -> None:
    for n in range(100):
        out = tmp_path / f"out-{n}"
        with kill_at(n) as killed:
            prepare_tokens([str(lines)], out)
        if out.exists():
            open_token_folder(out)
        if not killed:
            break
    assert 5 < n < 99
    assert out.exists()
