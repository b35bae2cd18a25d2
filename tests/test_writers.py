"""When a temporary file counts as left behind: its writer is asked for, on this machine only."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankscope import platforms
from rankscope.writers import WEEK, is_abandoned, own_mark

HERE, NUMBER, _ = own_mark().split("-")
PRINT_MARK = "from rankscope.writers import own_mark; print(own_mark(), flush=True)"


def test_a_process_is_known_while_it_lives_and_dead_afterwards(tmp_path: Path) -> None:
    """Also when it has ended and nobody has asked how: it keeps its number then."""
    waiting = f"{PRINT_MARK}; input()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        mark = process.stdout.readline().strip()
        assert mark.startswith(f"{HERE}-{process.pid}-")
        assert not is_abandoned(tmp_path, mark)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_abandoned(tmp_path, mark)  # not asked yet
    assert is_abandoned(tmp_path, mark)


def test_the_number_of_a_dead_process_may_belong_to_another_one(tmp_path: Path) -> None:
    assert not is_abandoned(tmp_path, own_mark())
    assert is_abandoned(tmp_path, f"{HERE}-{NUMBER}-{'0' * 8}")


def test_a_process_of_another_user_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_abandoned(tmp_path, own_mark())


def test_where_beginnings_are_unknown_a_living_number_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platforms, "_PROCESS", str(tmp_path / "{}"))
    (tmp_path / "self").touch()
    assert not is_abandoned(tmp_path, f"{HERE}-{NUMBER}-{'0' * 8}")


@pytest.mark.parametrize(("days", "left"), [(0, False), (6.9, False), (7.1, True)])
def test_what_another_machine_left_is_judged_by_its_age(
    tmp_path: Path, days: float, left: bool
) -> None:
    """Its processes cannot be asked; the youngest file of a folder decides."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "half").write_bytes(b"")
    now = time.time()
    for path in (folder, folder / "sub"):
        os.utime(path, (now, now - 3 * WEEK))
    os.utime(folder / "sub" / "half", (now, now - days / 7 * WEEK))
    assert is_abandoned(folder, f"{'f' * 8}-{NUMBER}-{'0' * 8}") == left
