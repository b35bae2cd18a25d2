from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankscope.errors import RankscopeError
from rankscope.training.data.text_sources import Reading, find_sources, iter_source


def test_a_folder_stands_for_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.jsonl.gz", "a.parquet", "c.bin", "notes.md", ".hidden/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    sources = find_sources([str(tmp_path), "hf:org/name"])
    names = [Path(source.name).relative_to(tmp_path).as_posix() for source in sources[:-1]]
    assert names == ["a.parquet", "b/1.jsonl.gz", "b/2.txt", "c.bin"]
    assert [source.bytes for source in sources] == [4, 4, 4, 4, None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", "does not exist"),
        ("missing", "does not exist"),
        ("", "no folder"),
        ("empty", "holds no file of"),
        ("prepared", "is prepared already"),
        ("splits", r"several splits: give one or more of .*splits/test, .*splits/train"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(tmp_path: Path, name: str, message: str) -> None:
    for folder in ("empty", "prepared", "splits/train", "splits/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "prepared" / "tokens.json").write_text("{}")
    (tmp_path / "splits" / "dataset_dict.json").write_text("{}")
    with pytest.raises(RankscopeError, match=message):
        find_sources([str(tmp_path / name) if name else ""])


def test_a_token_file_is_documents_where_it_is_known_what_ends_one(tmp_path: Path) -> None:
    np.array([1, 2, 9, 3, 9], dtype="<u4").tofile(tmp_path / "ids.npy")
    (source,) = find_sources([str(tmp_path / "ids.npy")])
    known = iter_source(source, Reading(dtype="uint32", end_of_document=9))
    assert [len(document) for document in known] == [3, 2]
    assert [len(document) for document in iter_source(source, Reading(dtype="uint32"))] == [5]
