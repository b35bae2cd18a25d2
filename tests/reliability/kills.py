"""What kills leave behind: calls that die at every change they make, at random, or in pairs.

Each function tries one kind of death and returns what came of it. `SHORT` is for every run of the
tests, `FULL` for ``make reliability``.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.plan import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.durable import is_temporary
from tests.analysis.series import Inline, weights, write_step
from tests.reliability.killing import forked, killed_before
from tests.reliability.row import Row

Options = dict[str, Any]
Tables = dict[str, bytes]

NAMES = ("metrics.csv", "metrics.parquet", "skipped.jsonl", "subspaces.csv", "subspaces.parquet")
ONE: Options = {"components": ("weight", "update")}
OTHER: Options = {"components": ("weight",), "roles": ("up",), "subspaces": 2}


@dataclass(frozen=True)
class Size:
    """How much to try.

    Attributes
    ----------
    stride
        Of the changes of a call, every how many-th it dies before.
    random
        How many calls die at a random moment.
    pairs
        How many pairs of calls run at once.
    """

    stride: int
    random: int
    pairs: int


SHORT, FULL = Size(stride=4, random=6, pairs=3), Size(stride=1, random=200, pairs=40)


@dataclass
class Tried:
    """What came of one kind of death: the first few trials that fell short, in words."""

    kind: str
    unit: str = "kills"
    kills: int = 0
    trials: int = 0
    short: list[str] = field(default_factory=list)

    def judge(self, trial: str, *, is_right: bool, left: list[str]) -> None:
        """Count a trial whose last call should have brought everything in order."""
        self.trials += 1
        if not is_right:
            self.short.append(f"{trial}: other tables")
        if left:
            self.short.append(f"{trial}: left {left[0]}")


def series(folder: Path, seed: int = 7) -> Path:
    """Write a run of three steps."""
    rng = np.random.default_rng(seed)
    for step in (1, 2, 3):
        write_step(folder / "run", step, weights(rng))
    return folder / "run"


def call(run: Path, out: Path, options: Options) -> None:
    """Analyse a run into a folder, as the command does, without worker processes."""
    analyze_runs(survey([run]), Selection.of(**options), out=out, engine=Inline())


def tables(out: Path) -> Tables:
    """What a call wrote, without the record, which holds the time."""
    return {name: (out / name).read_bytes() for name in NAMES if (out / name).exists()}


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders below a folder."""
    return [str(path) for path in folder.rglob("*") if is_temporary(path.name)]


def killed_everywhere(folder: Path, size: Size) -> Tried:
    """A call that dies before each of its changes, and is then repeated."""
    run, tried = series(folder), Tried("analyze killed before a change, repeated")
    call(run, folder / "whole", ONE)
    whole = tables(folder / "whole")
    for n, out in _every(folder, size):
        if not killed_before(n, partial(call, run, out, ONE)).is_killed:
            break
        tried.kills += 1
        call(run, out, ONE)
        tried.judge(f"change {n}", is_right=tables(out) == whole, left=leftovers(out))
    return tried


def killed_within_another(folder: Path, size: Size) -> Tried:
    """A call with other options that dies within the results of a first one, which is repeated."""
    run, tried = series(folder), Tried("another call killed within the results, first repeated")
    call(run, folder / "whole", ONE)
    whole = tables(folder / "whole")
    for n, out in _every(folder, size):
        shutil.copytree(folder / "whole", out)
        if not killed_before(n, partial(call, run, out, OTHER)).is_killed:
            break
        tried.kills += 1
        call(run, out, ONE)
        tried.judge(f"change {n}", is_right=tables(out) == whole, left=leftovers(out))
    return tried


def killed_at_random(folder: Path, size: Size, seed: int = 0) -> Tried:
    """Calls that die at any moment, up to three in a row, with options in turn."""
    rng, run, tried = (
        random.Random(seed),
        series(folder),
        Tried("analyze killed at random, in a row"),
    )
    began = time.monotonic()
    forked(partial(call, run, folder / "whole", ONE)).ended()
    duration, whole = time.monotonic() - began, tables(folder / "whole")
    for n in range(size.random):
        out = folder / f"random-{n}"
        for options in rng.choices((ONE, OTHER), k=rng.randint(1, 3)):
            child = forked(partial(call, run, out, options))
            time.sleep(rng.random() * duration)
            child.kill()
            tried.kills += child.ended().is_killed
        call(run, out, ONE)
        tried.judge(f"trial {n}", is_right=tables(out) == whole, left=leftovers(out))
    return tried


def at_once(folder: Path, size: Size) -> Tried:
    """Two calls with other options at the same time, and then the first again."""
    run, tried = series(folder), Tried("two calls at once, the first repeated", unit="calls")
    call(run, folder / "whole", ONE)
    whole = tables(folder / "whole")
    for n in range(size.pairs):
        out = folder / f"pair-{n}"
        children = [
            forked(partial(call, run, out, options))
            for options in ((ONE, OTHER) if n % 2 else (ONE, ONE))
        ]
        for child in children:
            ended = child.ended()
            if ended.code:
                tried.short.append(f"pair {n}: {ended.said.splitlines()[-1]}")
        call(run, out, ONE)
        tried.judge(f"pair {n}", is_right=tables(out) == whole, left=leftovers(out))
    return tried


KINDS: tuple[Callable[[Path, Size], Tried], ...] = (
    killed_everywhere,
    killed_within_another,
    killed_at_random,
    at_once,
)


def _every(folder: Path, size: Size) -> Iterator[tuple[int, Path]]:
    """The changes to die before, with a folder for the results of each, until there are no more."""
    n = 0
    while True:
        yield n, folder / f"at-{n}"
        n += size.stride


def section(scratch: Path, is_full: bool) -> Iterator[Row]:
    """The rows of the table of reliability that are about kills."""
    for kind in KINDS:
        tried = kind(scratch / kind.__name__, FULL if is_full else SHORT)
        remark = f"{tried.trials} trials"
        yield Row(
            tried.kind, tried.kills or 2 * tried.trials, tried.unit, tuple(tried.short), remark
        )
