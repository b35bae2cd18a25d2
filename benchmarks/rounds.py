"""One session of the benchmark: programs take turns, and all measurements are kept.

Programs that are compared run one after the other, round after round, and a ratio compares two
neighbouring runs, so that other load on the machine affects both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.make_checkpoints import Model
from benchmarks.memory import Measured
from benchmarks.programs import Program
from benchmarks.report import Row, Spread

Turns = dict[str, list[Measured]]  # by program, one per round


@dataclass
class Bench:
    """The settings, and all results so far."""

    scratch: Path
    model: Model
    rounds: int
    slow_rounds: int
    jobs: int
    counts: tuple[int, ...]  # checkpoints: of the standard case, …, of a long run
    runs: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def take_turns(self, title: str, contestants: Sequence[Program], rounds: int) -> Turns:
        """Run every program once per round, one after the other."""
        turns: Turns = {program.name: [] for program in contestants}
        for number in range(rounds):
            for program in contestants:
                tell(f"{title}: {program.name}, round {number + 1} of {rounds}")
                turns[program.name].append(program.measured())
        self.runs[title] = {name: [_noted(m) for m in turn] for name, turn in turns.items()}
        return turns

    def peak(self, title: str, program: Program, *, alone: bool = False) -> float:
        """Peak memory of a program, PSS in megabytes: over all its processes, or of the first."""
        tell(f"{title}: memory of {program.name}")
        measured = program.measured(watch_memory=True)
        self.runs.setdefault(f"{title}: memory", {})[program.name] = _noted(measured)
        return (measured.own if alone else measured.pss) or 0.0

    def faster(self, make: Callable[[str, int], Program]) -> int:
        """Number of BLAS threads that a program is faster with: one, or that of the workers.

        ``make`` returns the program for the name of a run and a number of threads. The trials
        use a run of one checkpoint.
        """
        trials = {}
        for threads in (1, self.jobs):
            program = make("float32-single", threads)
            tell(f"{program.name}: a trial with {threads} threads")
            trials[threads] = program.measured().wall
            self.runs[f"{program.name}: trials by threads"] = trials
        return min(trials, key=lambda threads: trials[threads])

    def run(self, dtype: str) -> Path:
        """Folder of the standard case."""
        return self.scratch / dtype

    def out(self, title: str) -> Path:
        """Folder for the results of an analysis."""
        return self.scratch / "results" / title


def ratio(turns: Turns, above: str, below: str, *, processor: bool = False) -> Spread:
    """Times of one program over those of another in the same round."""
    quantity = "processor" if processor else "wall"
    return Spread.of(
        [
            getattr(a, quantity) / getattr(b, quantity)
            for a, b in zip(turns[above], turns[below], strict=True)
        ]
    )


def walls(measured: Sequence[Measured]) -> Spread:
    """Wall times of a program."""
    return Spread.of([m.wall for m in measured])


def nothing_new(what: str, again: Sequence[Measured], *, at_most: float) -> Row:
    """Processor time of a call that finds nothing new."""
    used = Spread.of([each.processor for each in again])
    return Row(f"{what}, nothing new: processor time", used, "s", at_most=at_most)


def seconds(turns: Turns, name: str) -> str:
    """Median wall time of a program, for the table."""
    return f"{walls(turns[name]).median:.2f} s"


def fastest(turns: Turns, name: str) -> float:
    """Shortest wall time of a program."""
    return walls(turns[name]).lowest


def own_seconds(measured: Sequence[Measured]) -> float | None:
    """Seconds that a competitor reports for its analysis, without imports and reading."""
    lines = [m.output.strip().splitlines()[-1] for m in measured]
    if not lines[0].startswith("{"):
        return None
    return Spread.of([json.loads(line)["own_seconds"] for line in lines]).median


def _noted(measured: Measured) -> dict[str, Any]:
    last = measured.output.strip().splitlines()[-1:]
    return asdict(measured) | {"output": last[0] if last else ""}


def tell(message: str) -> None:
    """Write a line of progress to stderr."""
    print(message, file=sys.stderr, flush=True)
