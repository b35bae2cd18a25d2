"""Try mutants of every kind of file: ``python -m tests.reliability.fuzz --mutants 20000``."""

from __future__ import annotations

import argparse
import math
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.reliability.fuzzing.guard import FALLEN, MEMORY, Outcome, Trial, folder_in_memory
from tests.reliability.fuzzing.kinds import KINDS

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


def today() -> str:
    """The seed of a day."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def tallies(
    seed: str, mutants: int, *, names: Iterable[str] = (), every: int = 40, first: int = 0
) -> Iterator[Tally]:
    """Try so many mutants of these kinds, or of all, together; fewer where reading takes longer."""
    chosen = {name: KINDS[name] for name in names} or KINDS
    whole = sum(kind.share for kind in chosen.values())
    by_folder: dict[object, list[str]] = {}
    for name, kind in chosen.items():
        by_folder.setdefault(kind.write, []).append(name)
    for alike in by_folder.values():
        with folder_in_memory() as scratch:
            chosen[alike[0]].write(scratch / "honest")
            for name in alike:
                tally, trial = Tally(name), Trial(name, chosen[name], seed, every)
                count = math.ceil(mutants * chosen[name].share / whole)
                for outcome in trial.outcomes(range(first, first + count), scratch):
                    tally.add(outcome)
                yield tally


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
    parser.add_argument("--every", type=int, default=40, help="one of so many goes the whole way")
    parser.add_argument("--failures", type=Path, default=Path("build/mutants"))
    asked = parser.parse_args()
    print(f"seed {asked.seed!r}\n\n| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}", flush=True)
    fallen = False
    for tally in tallies(
        asked.seed, asked.mutants, names=asked.kind, every=asked.every, first=asked.first
    ):
        print(f"| {' | '.join(tally.cells)} |", flush=True)
        for line in kept(tally, asked.seed, asked.failures):
            fallen = True
            print(line, file=sys.stderr, flush=True)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"\n{sum(one.ru_utime + one.ru_stime for one in used):.0f} s of processor time")
    raise SystemExit(fallen)


if __name__ == "__main__":
    main()
