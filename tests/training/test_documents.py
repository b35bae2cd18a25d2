from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError
from rankscope.training.documents import hold_out, read_documents

TEXTS = ["first\r\n", "zweites Stück", "третий"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)],
)
def test_one_json_object_a_line_is_one_document(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"corpus.v2.jsonl{suffix}"
    lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    path.write_bytes(compress((lines + '\n{"text": ""}\n').encode()))
    assert read_documents(str(path)) == TEXTS


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)],
)
def test_a_text_file_is_one_document(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"book.txt{suffix}"
    path.write_bytes(compress("\n".join(TEXTS).encode()))
    assert read_documents(str(path)) == ["\n".join(TEXTS)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\n", "is none of"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.txt.gz", b"plain", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"text" * 100)[:-9], "cannot be read"),
        ("a.txt.xz", b"plain", "cannot be read"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2"),
        ("a.jsonl", b"[1]\n", "line 1"),
        ("a.jsonl", b'{"text": 3}\n', "line 1"),
        ("a.jsonl", b"{broken\n", "line 1"),
        ("a.jsonl", b"\n\n", "holds no text"),
        ("missing.txt", None, "No such file"),
    ],
)
def test_a_file_without_readable_text_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RankscopeError, match=message) as error:
        read_documents(str(path))
    assert str(path) in str(error.value)


def test_no_paragraph_of_pythons_text_stands_in_two_documents() -> None:
    documents = [set(text.split("\n\n")) for text in read_documents("pydoc_data.topics")]
    assert len(documents) > 50
    assert sum(map(len, documents)) == len(set().union(*documents))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_whole_documents_are_held_out_until_the_fraction_is_reached(fraction: float) -> None:
    documents = [f"document {i} " * (5 + i % 7) for i in range(100)]
    training, validation = hold_out(documents, fraction)
    assert sorted(training + validation) == sorted(documents)
    held = sum(map(len, validation)) / sum(map(len, documents))
    assert fraction <= held <= fraction + max(map(len, documents)) / sum(map(len, documents))


def test_the_same_documents_are_held_out_in_any_order() -> None:
    documents = [f"document {i}" for i in range(50)]
    _, one = hold_out(documents, 0.2)
    _, two = hold_out(documents[::-1], 0.2)
    assert set(one) == set(two)


def test_copies_of_a_document_are_on_one_side() -> None:
    documents = [f"document {i % 10}" for i in range(40)]
    training, validation = hold_out(documents, 0.3)
    assert validation
    assert not set(training) & set(validation)


def test_one_document_is_not_held_out() -> None:
    assert hold_out(["only"], 0.5) == (["only"], [])


def test_of_two_documents_one_is_left_to_train_on() -> None:
    training, validation = hold_out(["a" * 100, "b"], 0.5)
    assert len(training) == len(validation) == 1
