from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.durable import damage, sweep, write_folder
from rankscope.run_files import step_name
from rankscope.training.config import LogConfig
from rankscope.training.run_folder.saves import drop_checkpoints, dropped, is_log_spaced

STEPS = st.sets(st.integers(0, 400), min_size=1)


@pytest.mark.parametrize("save_every", [1, 2, 3, 8, 9, 1000])
def test_log_spaced_steps_are_powers_of_two_before_the_first_save(
    save_every: int,
) -> None:
    powers = {2**k for k in range(12)}
    found = {step for step in range(3000) if is_log_spaced(step, save_every)}
    assert found == {step for step in powers if step < save_every}


@given(STEPS, st.integers(0, 5))
def test_without_a_limit_every_checkpoint_is_kept(steps: set[int], keep_every: int) -> None:
    assert dropped(list(steps), keep_last=0, keep_every=keep_every) == []


@given(STEPS.flatmap(lambda s: st.permutations(sorted(s))), st.integers(1, 9), st.integers(0, 9))
def test_only_the_first_the_latest_and_the_multiples_are_kept(
    steps: list[int], keep_last: int, keep_every: int
) -> None:
    ordered = sorted(steps)
    multiples = {s for s in steps if keep_every and s % keep_every == 0}
    kept = {ordered[0], *ordered[-keep_last:], *multiples}
    gone = dropped(steps, keep_last=keep_last, keep_every=keep_every)
    assert gone == sorted(set(steps) - kept)
    assert max(steps) not in gone


@given(STEPS, st.integers(0, 4), st.integers(0, 9))
def test_dropping_on_the_way_is_dropping_at_the_end(
    steps: set[int], keep_last: int, keep_every: int
) -> None:
    def kept(present: list[int]) -> list[int]:
        gone = dropped(present, keep_last=keep_last, keep_every=keep_every)
        return [step for step in present if step not in gone]

    present: list[int] = []
    for step in sorted(steps):
        present = kept([*present, step])
    assert present == kept(sorted(steps))


def write_run(run: Path, steps: range) -> None:
    for room in ("checkpoints", "state"):
        for step in steps:
            folder = run / room / step_name(step)
            write_folder(folder, {"a/b": b"x", "c": b"y"}, kind="test-1")
    (run / "merges").mkdir(exist_ok=True)
    (run / "merges" / f"{step_name(3)}.safetensors").touch()
    (run / "checkpoints" / "notes").touch()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_only_checkpoints_are_removed(tmp_path: Path) -> None:
    write_run(tmp_path, range(8))
    states, merges = names(tmp_path / "state"), names(tmp_path / "merges")
    drop_checkpoints(tmp_path, LogConfig(keep_last=2, keep_every=3))
    kept = {step_name(step) for step in (0, 3, 6, 7)}
    assert names(tmp_path / "checkpoints") == {*kept, "notes"}
    assert (names(tmp_path / "state"), names(tmp_path / "merges")) == (states, merges)


def test_by_default_nothing_is_removed(tmp_path: Path) -> None:
    write_run(tmp_path, range(3))
    before = names(tmp_path / "checkpoints")
    drop_checkpoints(tmp_path, LogConfig())
    assert names(tmp_path / "checkpoints") == before


def test_a_process_killed_while_it_drops_leaves_complete_checkpoints(
    tmp_path: Path, kill_at: Callable[[int], AbstractContextManager[list[str]]]
) -> None:
    log, n, killed = LogConfig(keep_last=1), 0, ["not yet"]
    kept = {step_name(0), step_name(3), "notes"}
    while killed:
        write_run(tmp_path, range(4))
        with kill_at(n) as killed:
            drop_checkpoints(tmp_path, log)
        left = set((tmp_path / "checkpoints").glob("step-*"))
        assert {path.name for path in left} >= kept - {"notes"}
        assert all(damage(path) is None for path in left)
        sweep(tmp_path / "checkpoints")
        drop_checkpoints(tmp_path, log)
        assert names(tmp_path / "checkpoints") == kept
        n += 1
    assert n > 2 * 5  # each removed folder: a renaming, three files, two folders
