"""What kills leave behind: calls that die at every change they make, at random, or in pairs.

Each function tries one kind of death and returns what came of it. `SHORT` is for every run of the
tests, `FULL` for ``make reliability``.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyze_shard import answer_share
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.analysis.shards import Shard
from rankscope.checkpoints.discovery import survey
from rankscope.durable import is_temporary
from tests.analysis.series import Inline, weights, write_step
from tests.reliability.killing import forked, killed_before
from tests.reliability.row import Row

Options = dict[str, Any]
Tables = dict[str, bytes]

NAMES = ("metrics.csv", "metrics.parquet", "skipped.jsonl", "subspaces.csv", "subspaces.parquet")
ONE: Options = {"components": ("weight", "update")}
CROSSING: Options = {"components": ("weight", "update"), "subspaces": 2}
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


@dataclass(frozen=True)
class Work:
    """What is killed.

    Attributes
    ----------
    name
        The command.
    prepare
        Writes what it reads into a folder.
    call
        Runs it on that, with the folder of its results and options.
    first, other
        Options of two calls into one folder, of which the first replaces what the other wrote.
    tables
        Names of what it writes, but for the record, which holds the time.
    """

    name: str
    prepare: Callable[[Path], Path]
    call: Callable[[Path, Path, Options], None]
    first: Options
    other: Options
    tables: Sequence[str]

    def written(self, out: Path) -> Tables:
        """What a call wrote."""
        return {name: (out / name).read_bytes() for name in self.tables if (out / name).exists()}


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


ANALYZE = Work("analyze", series, call, ONE, OTHER, NAMES)
tables = ANALYZE.written


def leftovers(folder: Path) -> list[str]:
    """Temporary files and folders below a folder."""
    return [str(path) for path in folder.rglob("*") if is_temporary(path.name)]


def killed_everywhere(folder: Path, size: Size, work: Work = ANALYZE) -> Tried:
    """A call that dies before each of its changes, and is then repeated."""
    run, tried = work.prepare(folder), Tried(f"{work.name} killed before a change, repeated")
    work.call(run, folder / "whole", work.first)
    whole = work.written(folder / "whole")
    for n, out in _every(folder, size):
        if not killed_before(n, partial(work.call, run, out, work.first)).is_killed:
            break
        tried.kills += 1
        work.call(run, out, work.first)
        tried.judge(f"change {n}", is_right=work.written(out) == whole, left=leftovers(out))
    return tried


def killed_within_another(folder: Path, size: Size, work: Work = ANALYZE) -> Tried:
    """A call with other options that dies within the results of a first one, which is repeated."""
    run = work.prepare(folder)
    tried = Tried(f"another {work.name} killed within the results, first repeated")
    work.call(run, folder / "whole", work.first)
    whole = work.written(folder / "whole")
    for n, out in _every(folder, size):
        shutil.copytree(folder / "whole", out)
        if not killed_before(n, partial(work.call, run, out, work.other)).is_killed:
            break
        tried.kills += 1
        work.call(run, out, work.first)
        tried.judge(f"change {n}", is_right=work.written(out) == whole, left=leftovers(out))
    return tried


def killed_at_random(folder: Path, size: Size, work: Work = ANALYZE) -> Tried:
    """Calls that die at any moment, up to three in a row, with options in turn."""
    rng, run = random.Random(0), work.prepare(folder)
    tried = Tried(f"{work.name} killed at random, in a row")
    began = time.monotonic()
    forked(partial(work.call, run, folder / "whole", work.first)).ended()
    duration, whole = time.monotonic() - began, work.written(folder / "whole")
    for n in range(size.random):
        out = folder / f"random-{n}"
        for options in rng.choices((work.first, work.other), k=rng.randint(1, 3)):
            child = forked(partial(work.call, run, out, options))
            time.sleep(rng.random() * duration)
            child.kill()
            tried.kills += child.ended().is_killed
        work.call(run, out, work.first)
        tried.judge(f"trial {n}", is_right=work.written(out) == whole, left=leftovers(out))
    return tried


def at_once(folder: Path, size: Size, work: Work = ANALYZE) -> Tried:
    """Two calls with other options at the same time, and then the first again."""
    run = work.prepare(folder)
    tried = Tried(f"two of {work.name} at once, the first repeated", unit="calls")
    work.call(run, folder / "whole", work.first)
    whole = work.written(folder / "whole")
    for n in range(size.pairs):
        out = folder / f"pair-{n}"
        children = [
            forked(partial(work.call, run, out, options))
            for options in (work.first, work.other if n % 2 else work.first)
        ]
        for child in children:
            ended = child.ended()
            if ended.code:
                tried.short.append(f"pair {n}: {ended.said.splitlines()[-1]}")
        work.call(run, out, work.first)
        tried.judge(f"pair {n}", is_right=work.written(out) == whole, left=leftovers(out))
    return tried


def shards_killed(folder: Path, size: Size, seed: int = 0) -> Tried:
    """Four shards at once, two of which die, a plain call among them; all again, and the table."""
    rng, run, tried = random.Random(seed), series(folder), Tried("two of four shards killed, again")
    call(run, folder / "whole", CROSSING)
    whole = tables(folder / "whole")
    for n in range(size.pairs):
        out = folder / f"array-{n}"
        children = [forked(partial(call_shard, run, out, Shard(at, 4))) for at in (1, 2, 3, 4)]
        if n % 2:
            children.append(forked(partial(call, run, out, CROSSING)))
        for child in rng.sample(children[:4], 2):
            time.sleep(rng.random() * 0.05)
            child.kill()
        for child in children:
            ended = child.ended()
            tried.kills += ended.is_killed
            if ended.code and not ended.is_killed:
                tried.short.append(f"array {n}: {ended.said.splitlines()[-1]}")
        for at in rng.sample((1, 2, 3, 4), 4):
            call_shard(run, out, Shard(at, 4))
        found = analyze_runs(survey([run]), Selection.of(**CROSSING), out=out, engine=Inline())
        if found.computed:
            tried.short.append(f"array {n}: {found.computed} were missing")
        tried.judge(f"array {n}", is_right=tables(out) == whole, left=leftovers(out))
    return tried


def call_shard(run: Path, out: Path, shard: Shard) -> None:
    """Compute a share, without worker processes."""
    answer_share(Question(paths=(run,), **CROSSING), shard, out=out, engine=Inline())


KINDS: tuple[Callable[[Path, Size], Tried], ...] = (
    killed_everywhere,
    killed_within_another,
    killed_at_random,
    at_once,
    shards_killed,
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
        yield row(kind(scratch / kind.__name__, FULL if is_full else SHORT))


def row(tried: Tried) -> Row:
    """What came of one kind of death, as a row of that table."""
    count, short = tried.kills or 2 * tried.trials, tuple(tried.short)
    return Row(tried.kind, count, tried.unit, short, f"{tried.trials} trials")
