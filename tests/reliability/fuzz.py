"""Try mutants of every kind of file: ``python -m tests.reliability.fuzz --mutants 20000``."""

from __future__ import annotations

import argparse
import math
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

from tests.reliability.fuzzing.guard import FALLEN, MEMORY, Outcome, Trial, folder_in_memory
from tests.reliability.fuzzing.kinds import KINDS
from tests.reliability.fuzzing.readers import Reader, Seen

TITLES = ("kind", "mutants", "as before", "other numbers", "told", "refused", "crashes", "slowest",
          "most memory")  # fmt: skip


@dataclass
class Tally:
    """What became of the mutants of one kind."""

    name: str
    fates: Counter[str] = field(default_factory=Counter)
    fallen: list[Outcome] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0

    def add(self, outcome: Outcome) -> None:
        self.fates[outcome.fate] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.memory = max(self.memory, outcome.memory)
        if outcome.fate in FALLEN or outcome.memory > MEMORY:
            self.fallen.append(outcome)

    @property
    def cells(self) -> tuple[str, ...]:
        counts = (self.fates[fate] for fate in ("as before", "other numbers", "told", "refused"))
        return (
            *(self.name, str(self.fates.total()), *map(str, counts), str(len(self.fallen))),
            *(f"{self.slowest:.2f} s", f"{self.memory / 2**20:.0f} MB"),
        )


def in_words(tried: Iterable[Tally], seed: str) -> str:
    """How many mutants there were, and what became of them."""
    together = sum((tally.fates for tally in tried), Counter[str]())
    fates = ", ".join(f"{count} {fate}" for fate, count in sorted(together.items()))
    return f"seed {seed}: {together.total()} mutants: {fates}"


def today() -> str:
    """The seed of a day."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def tallies(
    seed: str,
    mutants: int,
    *,
    names: Iterable[str] = (),
    every: int | None = None,
    first: int = 0,
    jobs: int = 1,
) -> Iterator[Tally]:
    """Try so many mutants of these kinds, or of all, together; fewer where reading takes longer.

    Parameters
    ----------
    every
        How many mutants there are for one that goes through a whole command.
    first
        Number of the first mutant of every kind.
    jobs
        How many kinds are tried at once, each in a process.
    """
    chosen = {name: KINDS[name] for name in names} or KINDS
    whole = sum(kind.share for kind in chosen.values())
    numbers = {
        name: range(first, first + math.ceil(mutants * kind.share / whole))
        for name, kind in chosen.items()
    }
    by_folder: dict[object, dict[str, range]] = {}
    for name, some in numbers.items():
        by_folder.setdefault(chosen[name].write, {})[name] = some
    work = partial(_tallies_alike, seed, every)
    if jobs == 1:
        yield from chain.from_iterable(map(work, by_folder.values()))
        return
    dearest_first = sorted(by_folder.values(), key=len, reverse=True)
    with ProcessPoolExecutor(jobs, get_context("fork")) as processes:
        tried = {one.name: one for some in processes.map(work, dearest_first) for one in some}
    yield from (tried[name] for name in chosen)


def _tallies_alike(seed: str, every: int | None, numbers: dict[str, range]) -> list[Tally]:
    """Try mutants of kinds that share an honest folder."""
    tried, known = [], dict[Reader, Seen]()
    with folder_in_memory() as scratch:
        KINDS[next(iter(numbers))].write(scratch / "honest")
        for name, some in numbers.items():
            tally, trial = Tally(name), Trial(name, KINDS[name], seed, every)
            for outcome in trial.outcomes(some, scratch, known):
                tally.add(outcome)
            tried.append(tally)
    return tried


def kept(tally: Tally, seed: str, folder: Path) -> list[str]:
    """Write the mutants that fell, one of each place; returns a line for each place."""
    lines = []
    places: dict[str, list[Outcome]] = {}
    for outcome in tally.fallen:
        places.setdefault(outcome.where or outcome.fate, []).append(outcome)
    for place, outcomes in places.items():
        one = outcomes[0]
        path = folder / f"{tally.name.replace(' ', '-')}-{seed}-{one.number}"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.content)
        lines.append(f"{tally.name}: {len(outcomes)} times {place} ({one.why}): {path}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default=today(), help="any text; by default the date")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--kind", action="append", default=[], choices=list(KINDS))
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--every", type=int, help="one of so many goes the whole way")
    parser.add_argument("--jobs", type=int, default=1, help="so many kinds are tried at once")
    parser.add_argument("--failures", type=Path, default=Path("build/mutants"))
    asked = parser.parse_args()
    print(f"seed {asked.seed!r}\n\n| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}", flush=True)
    fallen, tried = False, []
    for tally in tallies(
        asked.seed,
        asked.mutants,
        names=asked.kind,
        every=asked.every,
        first=asked.first,
        jobs=asked.jobs,
    ):
        tried.append(tally)
        print(f"| {' | '.join(tally.cells)} |", flush=True)
        for line in kept(tally, asked.seed, asked.failures):
            fallen = True
            print(line, file=sys.stderr, flush=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(one.ru_utime + one.ru_stime for one in used)
    print(f"\n{in_words(tried, asked.seed)}; {seconds:.0f} s of processor time")
    raise SystemExit(fallen)


if __name__ == "__main__":
    main()
