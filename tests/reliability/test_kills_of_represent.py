"""Whatever call of ``represent`` dies whenever, the next has the tables of an undisturbed one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kills import Size, Tried, Work
from tests.reliability.kills_of_represent import KINDS, REPRESENT, SHORT


SOME, *OTHERS = KINDS


@pytest.mark.parametrize(
    "kind",
    [SOME, *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)],
    ids=lambda kind: kind.__name__,
)
def test_the_next_call_brings_everything_in_order(
    kind: Callable[[Path, Size, Work], Tried], tmp_path: Path
) -> None:
    tried = kind(tmp_path, SHORT, REPRESENT)
    assert tried.short == []
    assert tried.trials
