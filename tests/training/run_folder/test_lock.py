from __future__ import annotations

import os
from pathlib import Path

import pytest

from rankscope.errors import RankscopeError
from rankscope.training.run_folder.lock import locked


def test_a_second_trainer_is_refused_by_the_number_of_the_first(tmp_path: Path) -> None:
    with (
        locked(tmp_path),
        pytest.raises(RankscopeError, match=f"pid {os.getpid()}"),
        locked(tmp_path),
    ):
        pass


def test_the_lock_is_given_back_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_the_number_is_that_of_the_present_holder_alone(tmp_path: Path) -> None:
    """A lock that a process with a longer number held before keeps none of its digits."""
    (tmp_path / "run.lock").write_text("123456789012\n")
    with locked(tmp_path):
        assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"
