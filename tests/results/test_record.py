import json
import math
import os
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError
from rankscope.results import record as module
from rankscope.results.record import intact_record, is_as_written, read_record, write_with_record

FILES = {"table.parquet": b"numbers", "table.csv": b"1,2", "skipped.jsonl": b""}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_with_record(tmp_path / "analysis.json", {"key": "one"}, FILES)
    return tmp_path / "analysis.json"


def test_what_was_written_intact_record(path: Path) -> None:
    assert intact_record(path)
    assert read_record(path)["key"] == "one"
    assert {name: (path.parent / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "emptied", "flipped", "a folder"])
def test_a_file_that_is_not_as_it_was_is_noticed(path: Path, name: str, damage: str) -> None:
    file = path.parent / name
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    elif damage == "emptied":
        file.write_bytes(b"" if content else b"x")
    elif damage == "flipped":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"\0")
    assert not intact_record(path)


def test_files_that_hold_the_same_stay_untouched(path: Path) -> None:
    before = {one: one.stat().st_mtime_ns for one in path.parent.iterdir()}
    write_with_record(path, {"key": "one"}, FILES)
    assert {one: one.stat().st_mtime_ns for one in path.parent.iterdir()} == before


def test_a_file_of_the_same_size_is_replaced(path: Path) -> None:
    write_with_record(path, {"key": "two"}, {**FILES, "table.csv": b"2,1"})
    assert (path.parent / "table.csv").read_bytes() == b"2,1" and intact_record(path)


def test_a_file_that_must_not_be_there_is_removed_and_noticed(path: Path) -> None:
    write_with_record(path, {"key": "two"}, {**FILES, "table.csv": None})
    assert not (path.parent / "table.csv").exists() and intact_record(path)
    (path.parent / "table.csv").write_bytes(b"of another call")
    assert not intact_record(path)


@pytest.mark.parametrize("written", range(4))
def test_a_kill_between_any_two_files_leaves_no_record(
    path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Whatever the earlier call left, it is not taken for what this one wrote."""
    real, count = module.write_file, iter(range(10))

    def dying(target: Path, content: bytes) -> None:
        if next(count) == written:
            raise KeyboardInterrupt
        real(target, content)

    monkeypatch.setattr(module, "write_file", dying)
    others = {name: content + b"other" for name, content in FILES.items()}
    with pytest.raises(KeyboardInterrupt):
        write_with_record(path, {"key": "two"}, others)
    assert not intact_record(path)
    assert read_record(path) == {}


def test_numbers_that_json_lacks_are_words(path: Path) -> None:
    """A weight of low rank has the condition number inf, which no JSON reader takes."""
    write_with_record(path, {"lines": [{"condition": (math.inf, math.nan, 2.0)}]}, FILES)
    assert "Infinity" not in path.read_text() and "NaN" not in path.read_text()
    assert read_record(path)["lines"] == [{"condition": ["inf", None, 2.0]}]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"files": 3}', b'{"runs": [1]}', b"[" * 100_000, b"\xff"]
)
def test_a_damaged_record_is_an_error_that_names_it(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not intact_record(path)
    with pytest.raises(RankscopeError, match=r"analysis\.json: is damaged .*: run `rankscope"):
        read_record(path)


def test_a_number_that_is_another_in_a_record_is_noticed(path: Path) -> None:
    """Summaries are printed from the record, so it is held by a digest as the tables are."""
    write_with_record(path, {"summary": {"per": [0.25, math.inf]}}, FILES)
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert not intact_record(path)
    with pytest.raises(RankscopeError, match="its digest does not match its content"):
        read_record(path)


def test_a_record_of_an_older_version_is_read_but_not_taken_for_intact(path: Path) -> None:
    """It has no digest, so nothing shows whether it is as it was."""
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record))
    assert read_record(path)["key"] == "one"
    assert not intact_record(path)


def test_a_table_that_is_not_the_one_on_record_is_noticed(path: Path) -> None:
    assert is_as_written(path, "table.csv") and is_as_written(path, "not listed")
    (path.parent / "table.csv").write_bytes(b"1,3")
    assert not is_as_written(path, "table.csv")


def test_a_pipe_in_place_of_a_record_or_a_table_is_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "analysis.json")
    with pytest.raises(RankscopeError, match="is not a regular file"):
        read_record(tmp_path / "analysis.json")
    (tmp_path / "other.json").write_text('{"files": {"metrics.csv": "0"}}')
    os.mkfifo(tmp_path / "metrics.csv")
    assert not is_as_written(tmp_path / "other.json", "metrics.csv")


@pytest.mark.parametrize(
    "record", [{"runs": [{}]}, {"runs": [{"name": "a", "path": 5}]}, {"breaks": {"a": "x"}}]
)
def test_a_record_of_another_shape_is_damaged(tmp_path: Path, record: object) -> None:
    (tmp_path / "analysis.json").write_text(json.dumps(record))
    with pytest.raises(RankscopeError, match="is damaged"):
        read_record(tmp_path / "analysis.json")


def test_a_record_that_says_only_another_time_stays_untouched(path: Path) -> None:
    content = {"key": "two", "skipped": [{"path": "a"}]}
    write_with_record(path, {**content, "written": "then", "command": ["a"]}, FILES)
    before = path.read_bytes()
    write_with_record(path, {**content, "written": "now", "command": ["b"]}, FILES)
    assert path.read_bytes() == before
    write_with_record(path, {**content, "written": "now", "skipped": []}, FILES)
    assert read_record(path)["written"] == "now" and not read_record(path)["skipped"]
