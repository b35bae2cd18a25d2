from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.document_sources import find_sources, iter_source
from rankscope.training.data.prepare_settings import PrepareSettings

TEXTS = ["one", "", None, "zwei"]
ROWS = [[1, 2, 3], [], None, [4, 70_000, 6]]


def documents(name: Path | str, *, end: int | None = None, **settings: Any) -> list[Any]:
    (source,) = find_sources([str(name)])
    iterated = iter_source(source, PrepareSettings(**settings), end_of_document=end)
    return [d.tolist() if isinstance(d, np.ndarray) else d for d in iterated]


def write_parquet(path: Path, columns: dict[str, Any], rows: int = 2) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def test_files_of_a_folder_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
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
        ("", "is neither a folder nor"),
        ("table.csv", "is neither a folder nor"),
        ("empty", "holds no file of"),
        ("prepared", "is already prepared: train on it as `data.source`"),
        ("splits", r"several splits: give one or more of .*splits/test, .*splits/train"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(tmp_path: Path, name: str, message: str) -> None:
    for folder in ("empty", "prepared", "splits/train", "splits/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "prepared" / "tokens.json").write_text("{}")
    (tmp_path / "splits" / "dataset_dict.json").write_text("{}")
    (tmp_path / "table.csv").write_text("text\n")
    with pytest.raises(WrongSettingError, match=message):
        find_sources([str(tmp_path / name) if name else ""])


def test_a_name_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RankscopeError, match="cannot be read: File name too long"):
        find_sources([str(tmp_path / ("x" * 5000))])


def test_a_token_file_is_cut_into_documents(tmp_path: Path) -> None:
    np.array([1, 2, 9, 3, 9], dtype="<u4").tofile(tmp_path / "ids.npy")
    assert documents(tmp_path / "ids.npy", dtype="uint32", end=9) == [[1, 2, 9], [3, 9]]
    assert documents(tmp_path / "ids.npy", dtype="uint32") == [[1, 2, 9, 3, 9]]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("key", ["text", "content"])
@pytest.mark.usefixtures("datasets")
def test_a_column_of_text_is_read(tmp_path: Path, kind: pa.DataType, key: str) -> None:
    columns = {"id": [1, 2, 3, 4], key: pa.array(TEXTS, kind), "input_ids": ROWS}
    path = write_parquet(tmp_path / "a.parquet", columns)
    assert documents(path, text_key=key) == ["one", "zwei"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.uint32())]
)
@pytest.mark.usefixtures("datasets")
def test_rows_of_ids_are_read_if_there_is_no_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"input_ids": pa.array(ROWS, kind)}, rows=3)
    assert documents(path) == [[1, 2, 3], [4, 70_000, 6]]


@pytest.mark.usefixtures("datasets")
def test_rows_of_a_fixed_length_are_read(tmp_path: Path) -> None:
    ids = pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2))
    path = write_parquet(tmp_path / "a.parquet", {"input_ids": ids})
    assert documents(path) == [[1, 2], [3, 4]]


@pytest.mark.usefixtures("datasets")
def test_ids_do_not_replace_a_requested_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"input_ids": ROWS[:1]})
    with pytest.raises(WrongSettingError, match="no column 'body', but input_ids"):
        documents(path, text_key="body")


@pytest.mark.usefixtures("datasets")
def test_a_table_of_several_batches_is_read_in_its_order(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(2500)]
    path = write_parquet(tmp_path / "a.parquet", {"text": texts}, rows=700)
    assert documents(path) == texts


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "ü %41.PARQUET"])
@pytest.mark.usefixtures("datasets")
def test_a_name_is_not_taken_for_a_pattern(tmp_path: Path, name: str) -> None:
    write_parquet(tmp_path / "a1.parquet", {"text": ["other"]})
    assert documents(write_parquet(tmp_path / name, {"text": ["a"]})) == ["a"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"body": ["a"], "id": [1]}, "no column 'text', but body, id: name .* `text_key`"),
        ({"text": [1]}, "'text' of int64, which is not text"),
        ({"input_ids": [1]}, "'input_ids' of int64"),
        ({"input_ids": [[1.5]]}, "'input_ids' of list<"),
        ({"input_ids": [[1, -100]]}, "not token ids"),
        ({"input_ids": [[1, None]]}, "not token ids"),
        ({"input_ids": [[1, 1 << 32]]}, "not token ids"),
    ],
)
@pytest.mark.usefixtures("datasets")
def test_a_table_without_documents_is_refused_by_name(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(RankscopeError, match=message) as error:
        documents(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
@pytest.mark.usefixtures("datasets")
def test_a_broken_table_is_one_line(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(RankscopeError, match=r"a\.parquet: cannot be read") as error:
        documents(tmp_path / "a.parquet")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def save_dataset(folder: Path) -> None:
    """What ``datasets.Dataset.save_to_disk`` writes: streams of Arrow, named by state.json."""
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, texts in zip(names, (["a", ""], ["b", "c"]), strict=True):
        table = pa.table({"text": texts})
        path = str(folder / name)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    state = {
        **dict.fromkeys(("_format_columns", "_format_type", "_output_all_columns"), None),
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0123456789abcdef",
        "_format_kwargs": {},
        "_split": None,
    }
    (folder / "state.json").write_text(json.dumps(state))
    info = {"features": {"text": {"dtype": "string", "_type": "Value"}}}
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.usefixtures("datasets")
def test_a_saved_dataset_is_read_in_its_order(tmp_path: Path) -> None:
    save_dataset(tmp_path)
    assert documents(tmp_path) == ["a", "b", "c"]


@pytest.mark.usefixtures("datasets")
def test_a_saved_dataset_without_its_files_is_one_line(tmp_path: Path) -> None:
    save_dataset(tmp_path)
    for path in tmp_path.glob("*.arrow"):
        path.unlink()
    with pytest.raises(RankscopeError, match="cannot be read") as error:
        documents(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hf:org/name", ("org/name", None, "train")),
        ("hf:org/name:config", ("org/name", "config", "train")),
        ("hf:org/name:config:test", ("org/name", "config", "test")),
        ("hf:org/name::test", ("org/name", None, "test")),
    ],
)
def test_a_name_gives_configuration_and_split(
    datasets: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    asked: tuple[str, str | None, str],
) -> None:
    save_dataset(tmp_path)
    calls = []

    def load_dataset(path: str, config: str | None, *, split: str) -> object:
        calls.append((path, config, split))
        return datasets.load_from_disk(str(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert documents(name) == ["a", "b", "c"]
    assert calls == [asked]


@pytest.mark.parametrize("name", ["hf:org/name", "a.parquet"])
def test_without_datasets_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").touch()
    with pytest.raises(RankscopeError, match=r'pip install "rankscope\[datasets\]"'):
        documents(name)
