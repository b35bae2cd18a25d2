from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, BertJapaneseTokenizer

from rankscope.errors import RankscopeError
from rankscope.evaluation.prefix import prefix_token
from rankscope.evaluation.stored_tokenizer import StoredTokenizer, find_tokenizer
from rankscope.training.data.tokenizer import byte_tokenizer
from tests.evaluation.models import DOCUMENTS, write_tokenizer

END = "<|endoftext|>"


def read(*places: Path) -> StoredTokenizer:
    found = find_tokenizer(places, trust_remote_code=False)
    assert found is not None
    return found


@pytest.fixture
def lower_case(tmp_path: Path) -> Path:
    """A tokenizer whose words are the first to be given, in lower case; with <s> and </s>."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_ids_are_those_of_transformers_with_the_same_file(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, {"tokenizer_class": "PreTrainedTokenizerFast"})
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    reference = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    expected = reference(DOCUMENTS, add_special_tokens=False, split_special_tokens=True)
    assert read(tmp_path).encode(DOCUMENTS) == expected["input_ids"]


@pytest.mark.parametrize("named", ["GPT2TokenizerFast", "LlamaTokenizerFast"])
def test_the_file_counts_and_not_the_class_in_its_settings(lower_case: Path, named: str) -> None:
    (lower_case / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": named}))
    assert read(lower_case).encode(["The CAT"]) == [[1, 2]]


def test_nothing_is_cut_padded_or_added(lower_case: Path) -> None:
    assert read(lower_case).encode(["the cat the cat", "", "cat"]) == [[1, 2, 1, 2], [], [2]]
    assert read(lower_case).encode([]) == []


def test_a_special_token_named_in_a_text_is_text(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read(tmp_path)
    (ids,) = tokenizer.encode([f"x{END}y"])
    assert not tokenizer.special & set(ids)
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).decode(ids) == f"x{END}y"


def test_the_first_place_that_has_one_gives_the_tokenizer(
    lower_case: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    empty, other = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("other")
    byte_tokenizer().save(str(other / "mine.json"))
    assert read(empty, lower_case, other).ids["cat"] == 2
    assert read(other / "mine.json", lower_case).encode(["a"]) == [[97]]
    assert find_tokenizer([empty], trust_remote_code=False) is None


@pytest.mark.parametrize(
    ("file", "settings", "config", "expected"),
    [
        ("tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"}, {}, "BOS <s>"),
        ("tokenizer_config.json", {"bos_token": {"content": "<s>"}}, {}, "BOS <s>"),
        ("special_tokens_map.json", {"bos_token": "<s>"}, {}, "BOS <s>"),
        ("tokenizer_config.json", {"bos_token": None}, {"bos_token_id": 3}, "BOS <s>"),
        ("tokenizer_config.json", {"bos_token": "<not there>"}, {}, "EOS </s>"),
        ("tokenizer_config.json", {}, {"eos_token_id": [3, 4]}, "EOS <s>"),
        ("tokenizer_config.json", {}, {}, "EOS </s>"),
        # Of another tokenizer: the word "the", and no word at all.
        ("tokenizer_config.json", {}, {"bos_token_id": 1}, "EOS </s>"),
        ("tokenizer_config.json", {}, {"bos_token_id": 50256}, "EOS </s>"),
    ],
    ids=["name", "object", "map", "config", "unknown", "list", "usual", "word", "outside"],
)
def test_the_files_say_what_begins_a_text_else_the_model(
    lower_case: Path,
    file: str,
    settings: dict[str, Any],
    config: dict[str, Any],
    expected: str,
) -> None:
    (lower_case / file).write_text(json.dumps(settings))
    vocabulary = read(lower_case).vocabulary(config, is_own=False)
    assert prefix_token("auto", vocabulary)[1] == expected


def test_our_models_say_what_ended_their_documents(lower_case: Path) -> None:
    vocabulary = read(lower_case).vocabulary({"bos_token_id": 1, "eos_token_id": 1}, is_own=True)
    assert prefix_token("auto", vocabulary) == (1, "EOS the")


def test_a_tokenizer_of_older_files_is_read_by_transformers(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_bytes())["model"]
    older = tmp_path / "older"
    older.mkdir()
    (older / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (older / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (older / "config.json").write_text('{"model_type": "gpt2"}')
    found, expected = read(older), read(tmp_path)
    assert found.encode(DOCUMENTS) == expected.encode(DOCUMENTS)
    assert found.eos == END


def test_a_tokenizer_written_in_python_works_too(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[UNK]", "[CLS]", "[SEP]", "a", "b"]))
    BertJapaneseTokenizer(
        tmp_path / "vocab.txt", word_tokenizer_type="basic", subword_tokenizer_type="character"
    ).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    found = read(tmp_path)
    assert found.encode(["a b", "", "b"]) == [[3, 4], [], [4]]
    assert found.encode([]) == []
    assert read(tmp_path).stored == found.stored


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}', "\x00"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(RankscopeError, match=r"tokenizer\.json: cannot be read as a tokenizer"):
        read(tmp_path)


def test_settings_without_a_vocabulary_are_no_tokenizer(lower_case: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    assert read(settings, lower_case).ids["cat"] == 2


@pytest.mark.parametrize(
    ("vocabulary", "named"),
    [("{", "cannot be read as a tokenizer: "), ("{}", "lacks the vocabulary")],
    ids=["damaged", "empty"],
)
def test_older_files_without_a_vocabulary_are_one_line(
    tmp_path: Path, vocabulary: str, named: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "vocab.json").write_text(vocabulary)
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(RankscopeError, match=named) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_same_tokenizer_in_many_checkpoints_is_built_once(tmp_path: Path) -> None:
    found = []
    for step in range(3):
        folder = tmp_path / str(step)
        write_tokenizer(folder, {"bos_token": f"<{step}>"})
        found.append(find_tokenizer([folder], trust_remote_code=False))
    assert all(one is not None for one in found)
    assert len({id(one.encode) for one in found if one}) == 1
    assert [one.bos for one in found if one] == ["<0>", "<1>", "<2>"]  # of its own folder
