from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankscope.errors import RankscopeError
from rankscope.training.data.text_columns import iter_hub, iter_parquet, iter_saved_dataset

TEXTS = ["one", "", None, "zwei"]
ROWS = [[1, 2, 3], [], None, [4, 70_000, 6]]


def listed(documents: Iterator[Any]) -> list[Any]:
    return [d.tolist() if isinstance(d, np.ndarray) else d for d in documents]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("key", ["text", "content"])
def test_a_column_of_text_is_read(tmp_path: Path, kind: pa.DataType, key: str) -> None:
    table = pa.table({"id": [1, 2, 3, 4], key: pa.array(TEXTS, kind), "input_ids": ROWS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert listed(iter_parquet(tmp_path / "a.parquet", text_key=key)) == ["one", "zwei"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint32())]
)
def test_rows_of_ids_are_read_where_there_is_no_text(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"input_ids": pa.array(ROWS, kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    documents = list(iter_parquet(tmp_path / "a.parquet", text_key="text"))
    assert [d.tolist() for d in documents if not isinstance(d, str)] == [[1, 2, 3], [4, 70_000, 6]]


def test_rows_of_a_fixed_length_are_read(tmp_path: Path) -> None:
    table = pa.table({"input_ids": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))})
    pq.write_table(table, tmp_path / "a.parquet")
    assert listed(iter_parquet(tmp_path / "a.parquet", text_key="text")) == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"], "id": [1]}, "neither a column 'text' nor 'input_ids', but body, id"),
        ({"text": [1]}, "'text' of int64, which is not text"),
        ({"input_ids": [1]}, "'input_ids' of int64"),
        ({"input_ids": [[1.5]]}, "'input_ids' of list<"),
        ({"input_ids": [[1, -100]]}, "no token ids"),
        ({"input_ids": [[1, None]]}, "no token ids"),
        ({"input_ids": [[1, 1 << 32]]}, "no token ids"),
    ],
)
def test_a_table_without_documents_is_refused_by_name(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(RankscopeError, match=message) as error:
        list(iter_parquet(path, text_key="text"))
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_broken_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(RankscopeError, match="cannot be read") as error:
        list(iter_parquet(tmp_path / "a.parquet", text_key="text"))
    assert "\n" not in str(error.value)


def save_dataset(folder: Path, indices: object = None) -> None:
    """What ``datasets.Dataset.save_to_disk`` writes: streams of Arrow, named by state.json."""
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, texts in zip(names, (["a", ""], ["b", "c"]), strict=True):
        table = pa.table({"text": texts})
        path = str(folder / name)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": indices}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def test_a_saved_dataset_is_read_in_its_order(tmp_path: Path) -> None:
    save_dataset(tmp_path)
    assert listed(iter_saved_dataset(tmp_path, text_key="text")) == ["a", "b", "c"]


def test_a_saved_dataset_that_selects_its_rows_elsewhere_is_refused(tmp_path: Path) -> None:
    save_dataset(tmp_path, indices=[{"filename": "indices.arrow"}])
    with pytest.raises(RankscopeError, match="flatten_indices"):
        list(iter_saved_dataset(tmp_path, text_key="text"))


def test_a_saved_dataset_with_a_file_missing_is_refused(tmp_path: Path) -> None:
    save_dataset(tmp_path)
    (tmp_path / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(RankscopeError, match=r"data-00001-of-00002\.arrow: cannot be read"):
        list(iter_saved_dataset(tmp_path, text_key="text"))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hf:org/name", ("org/name", None, "train")),
        ("hf:org/name:config", ("org/name", "config", "train")),
        ("hf:org/name:config:test", ("org/name", "config", "test")),
        ("hf:org/name::test", ("org/name", None, "test")),
    ],
)
def test_a_dataset_by_name_is_asked_for_its_configuration_and_split(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: tuple[str, str | None, str]
) -> None:
    table = pa.table({"text": ["a", "b"]})
    calls = []

    def load_dataset(path: str, config: str | None, *, split: str) -> SimpleNamespace:
        calls.append((path, config, split))
        pieces = SimpleNamespace(iter=lambda batch_size: iter([table, table]))
        features = SimpleNamespace(arrow_schema=table.schema)
        return SimpleNamespace(with_format=lambda kind: pieces, features=features)

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    assert listed(iter_hub(name, text_key="text")) == ["a", "b", "a", "b"]
    assert calls == [asked]


def test_without_datasets_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(RankscopeError, match=r'pip install "rankscope\[datasets\]"'):
        next(iter_hub("hf:org/name", text_key="text"))
