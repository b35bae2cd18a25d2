"""Measure the scoring of minimal pairs and text against two ways to use transformers.

    python -m benchmarks.evaluation [--blimp PATH] [--threads 2]

README.md in this folder says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.evaluation_baselines import (
    BATCHED,
    CASES,
    OURS,
    SINGLY,
    Case,
    documents,
    scorers,
)
from benchmarks.memory import Measured
from benchmarks.programs import scoring
from benchmarks.report import Row, Spread, print_table, write_json
from benchmarks.rounds import Turns, fastest, ratio, tell, walls
from benchmarks.sentences import blimp_pairs, synthetic_pairs

Score = Callable[[], NDArray[np.float64]]
TASKS = {"pairs": "pairs", "text": "tokens"}  # by task: the unit that is counted
ALIKE = 1e-4  # nats, for the difference of a pair and for the mean token of a text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sizes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/evaluation.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blimp", type=Path, help="score its sentences instead of random ids")
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES))
    parser.add_argument("--no-memory", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    settings = {name: str(value) for name, value in vars(given).items()}
    settings["transformers"] = transformers.__version__
    rows: list[Row] = []
    runs: dict[str, Any] = {}
    for name in given.only:
        for task, contestants in _contestants(CASES[name], given.blimp).items():
            title = f"{name}, {task}"
            tell(f"{title}: {given.rounds} rounds")
            count = CASES[name].pairs if task == "pairs" else CASES[name].tokens
            apart = largest_difference(contestants) / (1 if task == "pairs" else CASES[name].window)
            refuse_other_scores(title, apart)
            turns = take_turns(contestants, rounds=given.rounds)
            runs[title] = {name: [asdict(m) for m in measured] for name, measured in turns.items()}
            rows += speed_rows(title, turns, count=count, unit=TASKS[task])
            if not given.no_memory:
                peaks = _peaks(name, task, threads=given.threads)
                runs[f"{title}: megabytes"] = peaks
                rows += memory_rows(title, peaks)
    write_json(given.out, rows, [], settings, runs)
    print_table(rows, [])


def _contestants(case: Case, blimp: Path | None) -> dict[str, dict[str, Score]]:
    """Scorers by task and name; what they score is already encoded."""
    if blimp is None:
        pairs = synthetic_pairs(case.pairs, case.vocab_size)
    else:
        pairs = blimp_pairs(blimp, case.pairs, case.vocab_size)
    text, compared = documents(case), scorers(case)
    return {
        "pairs": {name: partial(scorer.pairs, pairs) for name, scorer in compared.items()},
        "text": {name: partial(scorer.text, text) for name, scorer in compared.items()},
    }


def largest_difference(contestants: dict[str, Score]) -> float:
    """Largest difference of any two scorers in any score; warms all of them up."""
    scores = np.stack([score() for score in contestants.values()])
    return float((scores.max(axis=0) - scores.min(axis=0)).max())


def refuse_other_scores(title: str, apart: float) -> None:
    """Stop if the scorers do not agree, or give NaN."""
    if not apart <= ALIKE:
        raise RuntimeError(f"{title}: the scorers differ by {apart:.2g} nats: nothing is compared")


def take_turns(contestants: dict[str, Score], *, rounds: int) -> Turns:
    """Let the scorers score everything, one after the other, round after round."""
    turns: Turns = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, score in contestants.items():
            turns[name].append(_timed(score))
    return turns


def _timed(score: Score) -> Measured:
    wall, processor = time.perf_counter(), time.process_time()
    score()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Measured(wall, processor, None, None, None, "")


def speed_rows(title: str, turns: Turns, *, count: int, unit: str) -> list[Row]:
    """Times of the other scorers over ours, with the figures behind them."""
    return [
        Row(
            f"{title}: speed over {other}",
            ratio(turns, other, OURS),
            "×",
            f"{count / walls(turns[OURS]).median:,.0f} and "
            f"{count / walls(turns[other]).median:,.0f} {unit}/s; "
            f"processor time {ratio(turns, other, OURS, processor=True).median:.2f}, "
            f"fastest turns {fastest(turns, other) / fastest(turns, OURS):.2f}",
            at_least=1.0,
        )
        for other in (SINGLY, BATCHED)
    ]


def _peaks(case: str, task: str, *, threads: int) -> dict[str, dict[str, float]]:
    """Megabytes of each scorer, each in a separate process."""
    peaks = {}
    for name in (OURS, SINGLY, BATCHED):
        tell(f"{case}, {task}: memory of {name}")
        peaks[name] = json.loads(scoring(name, task, case, threads=threads).measured().output)
    return peaks


def memory_rows(title: str, peaks: dict[str, dict[str, float]]) -> list[Row]:
    """Our peak over those of the other scorers, with what was held before the first score."""
    megabytes = {
        name: f"{held['peak']:,.0f} MB ({held['before']:,.0f} before)"
        for name, held in peaks.items()
    }
    return [
        Row(
            f"{title}: memory over {other}",
            Spread.of([peaks[OURS]["peak"] / peaks[other]["peak"]]),
            "×",
            f"{megabytes[OURS]} and {megabytes[other]}",
            at_most=1.0,
        )
        for other in (SINGLY, BATCHED)
    ]


if __name__ == "__main__":
    main()
