"""Whatever dies whenever, the next call has the tables of one that nothing happened to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.kills import KINDS, SHORT, Size, Tried


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_next_call_brings_everything_in_order(
    kind: Callable[[Path, Size], Tried], tmp_path: Path
) -> None:
    tried = kind(tmp_path, SHORT)
    assert tried.short == []
    assert tried.trials >= 3
