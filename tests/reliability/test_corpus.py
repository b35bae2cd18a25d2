"""Files that once crashed a reader crash it no more."""

from pathlib import Path

import pytest

from rankscope.errors import RankscopeError
from tests.reliability.corpus.past_crashes import PAST, Past
from tests.reliability.fuzzing.readers import quietly


@pytest.mark.parametrize("past", PAST, ids=lambda past: past.name)
def test_what_once_crashed_is_told(past: Past, tmp_path: Path) -> None:
    past.write(tmp_path / "run")
    assert fate(past, tmp_path / "run") in past.fates


def fate(past: Past, folder: Path) -> str:
    try:
        seen = quietly(past.read, folder)
    except RankscopeError as error:
        assert len(str(error)) < 500 and "\n" not in str(error)
        return "refused"
    return "told" if seen.told else "as before"
