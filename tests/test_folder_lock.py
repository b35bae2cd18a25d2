"""A folder is written by one process at a time."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError
from rankscope.folder_lock import locked


def held(folder: Path) -> AbstractContextManager[None]:
    return locked(folder, kind="run", who="trainer")


def test_a_second_trainer_is_refused_by_the_number_of_the_first(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(RankscopeError, match=f"pid {os.getpid()}"),
        held(tmp_path),
    ):
        pass


def test_the_lock_is_given_back_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with held(tmp_path):
        pass


def test_the_number_is_that_of_the_present_holder_and_goes_with_it(tmp_path: Path) -> None:
    (tmp_path / "run.pid").write_text("123456789012\n")  # of one that was killed
    with held(tmp_path):
        assert (tmp_path / "run.pid").read_text() == f"{os.getpid()}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


@pytest.mark.parametrize("said", [None, b"", b"\xff", b"12345678901234567890123"])
def test_a_holder_that_has_not_said_its_number_still_holds(
    tmp_path: Path, said: bytes | None
) -> None:
    with held(tmp_path):
        (tmp_path / "run.pid").unlink()
        if said is not None:
            (tmp_path / "run.pid").write_bytes(said)
        with (
            pytest.raises(RankscopeError, match=r"another trainer.* writes here"),
            held(tmp_path),
        ):
            pass


def test_locks_of_two_kinds_are_two(tmp_path: Path) -> None:
    with held(tmp_path), locked(tmp_path, kind="monitor", who="monitor"):
        pass
