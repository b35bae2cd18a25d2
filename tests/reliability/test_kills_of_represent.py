"""Whatever call of ``represent`` dies whenever, the next has the tables of an undisturbed one.

So it is where the disk was full.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.commands import started_command
from tests.reliability.kills import (
    Size,
    Tried,
    Work,
    at_once,
    killed_everywhere,
    killed_within_another,
    leftovers,
)
from tests.reliability.kills_of_represent import REPRESENT, SHORT, models
from tests.reliability.test_full_disk import assert_named


@pytest.mark.parametrize(
    "kind",
    [
        killed_everywhere,
        pytest.param(killed_within_another, marks=pytest.mark.slow),
        pytest.param(at_once, marks=pytest.mark.slow),
    ],
    ids=lambda kind: kind.__name__,
)
def test_the_next_call_brings_everything_in_order(
    kind: Callable[[Path, Size, Work], Tried], tmp_path: Path
) -> None:
    tried = kind(tmp_path, SHORT, REPRESENT)
    assert tried.short == []
    assert tried.trials


@pytest.mark.parametrize(
    ("most_bytes", "path"),
    [(100, "kept-step-00000001."), (9_000, "representations.")],  # of the store, of the tables
)
def test_what_a_full_disk_did_not_take_is_named(tmp_path: Path, most_bytes: int, path: str) -> None:
    run, out = models(tmp_path), tmp_path / "new"
    settings = ("--tokens", "60", "--window", "12", "--compare", "none", "--threads", "1")
    given = ("represent", str(run), "--text", str(tmp_path / "novel.jsonl"), "--out", str(out))
    assert_named(started_command(*given, *settings, most_bytes=most_bytes).ended(), path)
    assert leftovers(tmp_path) == []
    assert not (out / "representations.json").exists()
