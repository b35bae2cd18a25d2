from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankscope
from rankscope.durable import (
    GrowingFile,
    _temporary,
    append,
    damage,
    digest_of,
    digest_of_file,
    is_temporary,
    make_folder,
    new_folder,
    read_manifest,
    remove_folder,
    require_writable,
    safe_name,
    scratch_file,
    sweep,
    write_file,
    write_folder,
    write_listed_file,
)
from rankscope.writers import own_mark
from tests.conftest import dead_mark

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


def write_new_folder(path: Path) -> None:
    with new_folder(path) as folder:
        descriptor = os.open(folder / "a.json", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, NEW["a.json"])
        os.fsync(descriptor)  # of the file alone, not of the folder
        os.close(descriptor)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_folder(path, NEW, kind="test-1"),
        write_new_folder,
        lambda path: write_file(path, b"new"),
    ],
    ids=["write_folder", "new_folder", "write_file"],
)
def test_content_is_flushed_before_the_renaming_and_the_name_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    flushed: list[int] = []
    flushed_before_rename: list[int] = []
    real = {name: getattr(os, name) for name in ("rename", "replace")}

    def watched(name: str) -> Callable[[Any, Any], None]:
        def rename(old: Any, new: Any) -> None:
            flushed_before_rename.extend(flushed)
            real[name](old, new)

        return rename

    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd).st_ino))
    for name in real:
        monkeypatch.setattr(os, name, watched(name))
    write(tmp_path / "step")
    parts = [tmp_path / "step", *(tmp_path / "step").rglob("*")]
    assert {part.stat().st_ino for part in parts} <= set(flushed_before_rename)
    assert flushed[-1] == tmp_path.stat().st_ino


def test_a_killed_writer_leaves_the_old_folder_or_the_new_one(
    tmp_path: Path, kill_at: KillAt
) -> None:
    folder, n, killed = tmp_path / "step", 0, ["not yet"]
    while killed:
        write_folder(folder, OLD, kind="test-1")
        with kill_at(n) as killed:
            write_folder(folder, NEW, kind="test-1")
        if folder.exists():
            assert content(folder) in (OLD, NEW)
        sweep(tmp_path)
        assert damage(folder) is None
        assert content(folder) in (OLD, NEW)
        assert [p.name for p in tmp_path.iterdir()] == ["step"]
        n += 1
    assert n > 15
    assert content(folder) == NEW


def test_a_killed_writer_leaves_the_new_folder_or_none(tmp_path: Path, kill_at: KillAt) -> None:
    n, killed = 0, ["not yet"]
    while killed:
        folder = tmp_path / f"parent-{n}" / "step"
        with kill_at(n) as killed:
            write_new_folder(folder)
        if folder.exists():
            assert [p.name for p in folder.iterdir()] == ["a.json"]
            assert (folder / "a.json").read_bytes() == NEW["a.json"]
        sweep(folder.parent)
        assert {p.name for p in tmp_path.glob("parent-*/*")} <= {"step"}
        n += 1
    assert n > 6
    assert folder.exists()


def test_a_block_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "step") as folder:
        write_file(folder / "a.json", b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_replaces_only_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "step").mkdir()
    write_new_folder(tmp_path / "step")
    with pytest.raises(OSError, match="not empty"):
        write_new_folder(tmp_path / "step")
    assert [p.name for p in tmp_path.rglob("*")] == ["step", "a.json"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_folder_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write_folder(tmp_path / "step", OLD, kind="test-1")
    real_rename = os.rename

    def fail_for_the_new_one(old: Any, new: Any) -> None:
        if Path(new).name == "step" and not str(old).endswith(".old"):
            raise error
        real_rename(old, new)

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(os, "rename", fail_for_the_new_one)
        write_folder(tmp_path / "step", NEW, kind="test-1")
    assert content(tmp_path / "step") == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["step"]


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
    assert n > 4
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


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("name", ["../other", "{absolute}"])
def test_a_manifest_that_leads_out_of_its_folder_is_damage(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    (tmp_path / "other").write_bytes(NEW["a.json"])
    listing = (tmp_path / "step" / "MANIFEST.json").read_text()
    name = name.format(absolute=tmp_path / "other")
    (tmp_path / "step" / "MANIFEST.json").write_text(listing.replace("a.json", name))
    assert "lists a file that is not in it" in (damage(tmp_path / "step") or "")


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
    living, dead = own_mark(), dead_mark()
    kept = [f".tmp-step-1-{living}-0", "step-1", ".tmp-notes", f"tmp-step-1-{dead}-0", ".tmp-a-12"]
    for name in kept:
        (tmp_path / name).mkdir()
    for name in (f".tmp-step-1-{dead}-0", f".tmp-step-2-old-{dead}-3", f".tmp-step-1-{dead}-1.old"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / f".tmp-x.safetensors-{dead}-12").write_bytes(b"")
    (tmp_path / f".tmp-link-{dead}-0").symlink_to(tmp_path / "step-1")
    sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_the_first_write_into_a_folder_sweeps_it(tmp_path: Path) -> None:
    left = tmp_path / f".tmp-other-{dead_mark()}-0"
    left.mkdir()
    write_file(tmp_path / "file", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_threads_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """Of two writers at once, one wins, and neither fails."""
    both, contents = threading.Barrier(2), [bytes([n]) * 100_000 for n in (1, 2)]

    def write(content: bytes) -> None:
        both.wait()
        for _ in range(20):
            write_file(tmp_path / "file", content)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["write", "fsync", "replace", "mkdir"])
def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*given: Any, **_: object) -> None:
        at = given[:1] if isinstance(given[0], (str, Path)) else ()
        raise OSError(errno.ENOSPC, "No space left on device", *map(str, at))

    folder = tmp_path / "made"
    if name != "mkdir":
        folder.mkdir()
    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError) as caught:
        write_file(folder / "file", b"content")
    named = folder if name == "mkdir" else folder / "file"
    assert str(caught.value) == f"[Errno 28] No space left on device: {str(named)!r}"


def test_who_holds_the_lock_of_a_folder_sweeps_what_seems_to_be_of_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart of the machine, any process may have the number of the writer."""
    left = _temporary(tmp_path / "step-1")
    (tmp_path / f"{left.name}.old").mkdir()
    (tmp_path / f"{left.name}.old" / "a").touch()
    left.mkdir()
    monkeypatch.setattr("rankscope.durable.is_abandoned", lambda path, mark: False)
    sweep(tmp_path)
    assert not (tmp_path / "step-1").exists()
    sweep(tmp_path, alone=True)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "step-1",
        "step-1/a",
    ]


def test_sweeping_a_missing_folder_does_nothing(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_only_names_of_the_pattern_are_temporary() -> None:
    name = f".tmp-a.json-{own_mark()}-23"
    assert all(map(is_temporary, (name, f"{name}.old")))
    assert not any(map(is_temporary, (".tmp-notes", ".tmp-a.json-23", name[1:], f"{name}.bak")))


def test_a_folder_is_removed_whole_or_not_at_all(tmp_path: Path, kill_at: KillAt) -> None:
    n, killed = 0, ["not yet"]
    while killed:
        write_folder(tmp_path / "step", NEW, kind="test-1")
        with kill_at(n) as killed:
            remove_folder(tmp_path / "step")
        assert not (tmp_path / "step").exists() or damage(tmp_path / "step") is None
        sweep(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} <= {"step"}
        n += 1
    assert n > 5
    assert list(tmp_path.iterdir()) == []


def test_a_removal_is_flushed_before_anything_in_the_folder_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "step", NEW, kind="test-1")
    calls: list[str] = []
    for name in ("rename", "fsync", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, _n=name, _f=real, **k: (calls.append(_n), _f(*a, **k))[1]
        )
    remove_folder(tmp_path / "step")
    assert calls[:3] == ["rename", "fsync", "unlink"]


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
def test_a_safe_name_is_one_path_component(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe and len(safe) < 100
    assert safe != safe_name(name + "x")


def test_a_plain_name_is_left_as_it_is() -> None:
    assert safe_name("relora-8_b.1") == "relora-8_b.1"


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
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


def test_a_killed_check_leaves_nothing_behind(tmp_path: Path, kill_at: KillAt) -> None:
    n, killed = 0, ["not yet"]
    while killed:
        with kill_at(n) as killed:
            require_writable(tmp_path / f"folder-{n}")
        sweep(tmp_path / f"folder-{n}")
        assert list(tmp_path.glob("*/*")) == []
        n += 1
    assert n > 4


@given(text=st.text(), other=st.text())
def test_any_text_has_a_safe_name_of_its_own(text: str, other: str) -> None:
    safe = safe_name(text)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,80}", safe) and Path(safe).name == safe
    assert (safe == safe_name(other)) == (text == other)


# Files that write by other means, with the reason.
OTHER_WRITERS = {
    "token_folder.py": "token ids may be larger than memory; in a folder of `new_folder`, flushed",
    "snapshots.py": "copies in memory, on their way to the process that decomposes them",
    "app.py": "the null device",
    "command.py": "the null device",
    "copied_process.py": "the null device",
    "figure_files.py": "matplotlib writes into memory",
    "hover.py": "matplotlib writes into memory",
}
WRITING = re.compile(
    r"^(?!\s*>>>).*"  # not in an example
    r"(\.write_(bytes|text)\(|\bopen\([^)\n]*[\"'][wax][b+]*[\"']|O_(WRONLY|RDWR)"
    r"|\.savefig\(|\bnp\.save\()",
    re.MULTILINE,
)


def test_all_writing_goes_through_this_module() -> None:
    package = Path(rankscope.__file__).parent
    writers = {
        path.name for path in package.rglob("*.py") if WRITING.search(path.read_text("utf-8"))
    }
    assert writers <= {"durable.py", *OTHER_WRITERS}


def test_a_growing_file_has_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with GrowingFile(path) as file:
        file.write(b"ne")
        file.write(b"w")
        assert path.read_bytes() == b"old" and file.tell() == 3
        assert file.digest == hashlib.blake2b(b"new", digest_size=16).hexdigest()
        file.complete()
    assert path.read_bytes() == b"new" and digest_of_file(path) == digest_of(b"new")
    with pytest.raises(RuntimeError), GrowingFile(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"new" and [one.name for one in tmp_path.iterdir()] == ["a.csv"]


def test_a_full_disk_names_the_file_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GrowingFile(tmp_path / "a.csv") as file:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(OSError, match=r"a\.csv"):
            file.write(b"half")


def test_a_scratch_file_has_no_name(tmp_path: Path) -> None:
    with scratch_file(tmp_path) as file:
        file.write(b"word")
        file.seek(0)
        assert file.read() == b"word" and not list(tmp_path.iterdir())
