from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from rankscope.durable import (
    append,
    damage,
    make_folder,
    read_manifest,
    remove_folder,
    require_writable,
    safe_name,
    sweep,
    write_file,
    write_folder,
    write_listed_file,
)

KillAt = Callable[[int], AbstractContextManager[list[str]]]
OLD = {"a.json": b"old", "sub/b.bin": b"old too"}
NEW = {"a.json": b"new", "sub/b.bin": b"\x00" * 5000, "sub/empty": b""}


def content(folder: Path) -> dict[str, bytes]:
    names = read_manifest(folder)["files"]
    assert isinstance(names, dict)
    return {name: (folder / name).read_bytes() for name in names}


def test_a_written_folder_holds_its_files_and_their_digests(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    write_folder(folder, NEW, kind="test-1")
    assert content(folder) == NEW
    assert damage(folder) is None
    manifest = json.loads((folder / "MANIFEST.json").read_bytes())
    assert manifest["format"] == "test-1"
    assert manifest["files"]["sub/b.bin"]["bytes"] == 5000
    assert [p.name for p in tmp_path.iterdir()] == ["step"]


def test_the_manifest_is_the_last_file_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real_open = os.open

    def watched(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            opened.append(Path(path).name)
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    write_folder(tmp_path / "step", NEW, kind="test-1")
    assert opened == ["a.json", "b.bin", "empty", "MANIFEST.json"]


def test_a_folder_is_renamed_when_all_of_it_is_on_the_disk_and_then_its_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flushed_before_rename: list[int] = []
    real_rename = os.rename

    def rename(old: Any, new: Any) -> None:
        flushed_before_rename.extend(flushed)
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    monkeypatch.setattr(os, "rename", rename)
    write_folder(tmp_path / "step", NEW, kind="test-1")
    parts = [tmp_path / "step", *(tmp_path / "step").rglob("*")]
    assert set(flushed_before_rename) == {part.stat().st_ino for part in parts}
    assert flushed[-1] == tmp_path.stat().st_ino


def test_a_killed_writer_leaves_the_old_folder_the_new_one_or_none(
    tmp_path: Path, kill_at: KillAt
) -> None:
    folder, n, killed = tmp_path / "step", 0, ["not yet"]
    while killed:
        write_folder(folder, OLD, kind="test-1")
        with kill_at(n) as killed:
            write_folder(folder, NEW, kind="test-1")
        if folder.exists():
            assert damage(folder) is None
            assert content(folder) in (OLD, NEW)
        sweep(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} <= {"step"}
        n += 1
    assert n > 15
    assert content(folder) == NEW


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, kill_at: KillAt
) -> None:
    path, n, killed = tmp_path / "file", 0, ["not yet"]
    while killed:
        write_file(path, b"old")
        with kill_at(n) as killed:
            write_file(path, b"new")
        assert path.read_bytes() in (b"old", b"new")
        sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
        n += 1
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_failing_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, name, fail)
        write_folder(tmp_path / "step", NEW, kind="test-1")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data[:7])))
    write_folder(tmp_path / "step", NEW, kind="test-1")
    append(tmp_path / "log", b"a line of more than seven\n")
    monkeypatch.undo()
    assert content(tmp_path / "step") == NEW
    assert (tmp_path / "log").read_bytes() == b"a line of more than seven\n"


def test_the_same_content_is_not_written_twice(tmp_path: Path) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    before = (tmp_path / "step").stat().st_ino
    write_folder(tmp_path / "step", NEW, kind="test-1")
    assert (tmp_path / "step").stat().st_ino == before


def test_a_damaged_folder_is_written_anew(tmp_path: Path) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    (tmp_path / "step" / "a.json").write_bytes(b"bad")
    write_folder(tmp_path / "step", NEW, kind="test-1")
    assert content(tmp_path / "step") == NEW


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "MANIFEST.json").unlink(),
        lambda folder: (folder / "MANIFEST.json").write_bytes(b"{"),
        lambda folder: (folder / "MANIFEST.json").write_bytes(b"[]"),
        lambda folder: (folder / "a.json").unlink(),
        lambda folder: (folder / "a.json").write_bytes(b"ne"),
        lambda folder: (folder / "a.json").write_bytes(b"neW"),
        lambda folder: (folder / "sub/empty").write_bytes(b"x"),
    ],
)
def test_damage_is_seen(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    harm(tmp_path / "step")
    assert damage(tmp_path / "step")


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_folder(tmp_path / "step", NEW, kind="test-1")
        write_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    for path in (tmp_path / "step" / "a.json", tmp_path / "file"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_sweeping_removes_what_dead_writers_left_and_nothing_else(tmp_path: Path) -> None:
    parent = os.getppid()
    kept = [f".tmp-step-1-{parent}", "step-1", ".tmp-notes", "tmp-step-1-99"]
    for name in kept:
        (tmp_path / name).mkdir()
    for name in (f".tmp-step-1-{os.getpid()}", ".tmp-step-2-old-4194303"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / ".tmp-x.safetensors-4194303").write_bytes(b"")
    (tmp_path / ".tmp-link-4194303").symlink_to(tmp_path / "step-1")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_sweeping_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")


def test_a_removed_folder_is_gone_at_once(tmp_path: Path, kill_at: KillAt) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    with kill_at(1):
        remove_folder(tmp_path / "step")
    assert not (tmp_path / "step").exists()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_failed_write_leaves_the_earlier_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_file(target, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["../../etc", "a/b", "a b", "", "..", "run\n", "ü", "x" * 300])
def test_a_safe_name_is_one_part_of_a_path_and_of_no_other_text(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe and len(safe) < 100
    assert safe != safe_name(name + "x")


def test_a_plain_name_is_left_as_it_is() -> None:
    assert safe_name("relora-8_b.1") == "relora-8_b.1"


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        require_writable(tmp_path / "file")


def test_a_growing_folder_lists_every_file_as_it_is(tmp_path: Path) -> None:
    for name, data in (("b", b"1"), ("a", b"2"), ("b", b"3")):
        write_listed_file(tmp_path / "all" / name, data, kind="test-1")
        assert damage(tmp_path / "all") is None
    assert list(content(tmp_path / "all")) == ["a", "b"]
    (tmp_path / "all" / "a").write_bytes(b"4")
    assert damage(tmp_path / "all") == "a is not what was written"


def test_a_kill_leaves_no_file_listed_as_it_is_not(tmp_path: Path, kill_at: KillAt) -> None:
    n, killed = 0, ["not yet"]
    while killed:
        folder = tmp_path / str(n)
        write_listed_file(folder / "a", b"old", kind="test-1")
        with kill_at(n) as killed:
            write_listed_file(folder / "a", b"new", kind="test-1")
        assert damage(folder) is None
        n += 1
    assert n > 10
