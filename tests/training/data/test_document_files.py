from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from rankscope.errors import RankscopeError
from rankscope.training.data.document_files import iter_documents, iter_records, read_documents


def zst(content: bytes) -> bytes:
    """Two frames, as tools that write in parallel leave them."""
    half = len(content) // 2
    return b"".join(
        pa.compress(part, codec="zstd", asbytes=True) for part in (content[:half], content[half:])
    )


COMPRESSIONS = [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", zst)]
TEXTS = ["first\r\n", "zweites Stück", "третий"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    COMPRESSIONS,
)
def test_each_json_line_is_a_document(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"corpus.v2.jsonl{suffix}"
    lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(TEXTS))
    path.write_bytes(compress((lines + '\n{"text": ""}\n').encode()))
    assert read_documents(str(path)) == TEXTS


@pytest.mark.parametrize(
    ("suffix", "compress"),
    COMPRESSIONS,
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
        ("a.csv", b"text\n", "is not one of"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.txt.gz", b"plain", "cannot be read"),
        ("a.txt.gz", gzip.compress(b"text" * 100, mtime=0)[:-9], "cannot be read"),
        ("a.txt.xz", b"plain", "cannot be read"),
        ("a.txt.zst", b"plain", "cannot be read"),
        ("a.jsonl.xz", lzma.compress(b'{"text": "a"}' * 100)[:-9], "cannot be read"),
        ("a.jsonl.zst", zst(b'{"text": "a"}\n' * 100)[:-5], "cannot be read"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2"),
        ("a.jsonl", b"[1]\n", "line 1"),
        ("a.jsonl", b'{"text": 3}\n', "line 1"),
        ("a.jsonl", b"{broken\n", "line 1"),
        ("a.jsonl", b"\n\n", "holds no text"),
        ("missing.txt", None, "does not exist"),
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


def test_no_paragraph_of_pythons_text_is_in_two_documents() -> None:
    documents = [set(text.split("\n\n")) for text in read_documents("pydoc_data.topics")]
    assert len(documents) > 50
    assert sum(map(len, documents)) == len(set().union(*documents))


def test_compressed_json_holds_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "c4-train.00000.json.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n', mtime=0))
    assert list(iter_documents(str(path))) == ["a", "b"]


def test_the_key_of_the_text_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "no", "content": "yes"}\n{"text": "no"}\n')
    documents = iter_documents(str(path), text_key="content")
    assert next(documents) == "yes"
    with pytest.raises(RankscopeError, match=r'line 2 .*"content"'):
        next(documents)


def test_a_record_is_the_whole_json_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "source": "s"}\n{"text": "", "id": 1}\n')
    (tmp_path / "a.txt").write_text("a")
    lines, whole = (list(iter_records(str(tmp_path / name))) for name in ("a.jsonl", "a.txt"))
    assert lines == [("a", {"text": "a", "source": "s"})]
    assert whole == [("a", {"text": "a"})]
