"""Whatever dies whenever, the next call has the tables of one that nothing happened to."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rankscope.durable import is_temporary
from rankscope.writers import own_mark
from tests.conftest import dead_mark
from tests.reliability.killing import killed_before
from tests.reliability.kills import KINDS, ONE, SHORT, Size, Tried, call, leftovers, series


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_next_call_brings_everything_in_order(
    kind: Callable[[Path, Size], Tried], tmp_path: Path
) -> None:
    tried = kind(tmp_path, SHORT)
    assert tried.short == []
    assert tried.trials >= 3


def test_a_call_that_finds_nothing_new_sweeps_all_the_same(tmp_path: Path) -> None:
    """Its results, the stores and the folders in them, but nothing of a living process."""
    run, out = series(tmp_path), tmp_path / "out"
    call(run, out, ONE)
    for folder in (".", "spectra", "spectra/run", "subspaces/run", "scores/run/text-12345678"):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for mark in (dead_mark(), own_mark()):
            (out / folder / f".tmp-step-00000001.safetensors-{mark}-0").write_bytes(b"half")
    call(run, out, ONE)
    assert len(leftovers(out)) == 5
    assert all(own_mark() in path for path in leftovers(out))


@pytest.mark.parametrize("change", [3, 5])
def test_the_next_preparation_sweeps_what_a_killed_one_left(tmp_path: Path, change: int) -> None:
    from rankscope.training.data.prepare import prepare_tokens

    (tmp_path / "text.txt").write_text("some words of a book\n" * 50)
    prepare = partial(prepare_tokens, [str(tmp_path / "text.txt")])
    assert killed_before(change, partial(prepare, tmp_path / "new" / "data")).is_killed
    assert any(is_temporary(path.name) for path in (tmp_path / "new").iterdir())
    prepare(tmp_path / "new" / "other")
    assert leftovers(tmp_path) == []
