"""Measure a step of the trainer against transformers, and of ReLoRA against full rank.

    python -m benchmarks.train [--compile] [--bf16] [--device cuda]

See README.md beside this file for how to read the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
import transformers

from benchmarks.report import Row, Spread, print_table, write_json
from benchmarks.rounds import tell
from benchmarks.training_arms import CASES, FULL, RELORA, TRANSFORMERS, Arm, Way, arms


@dataclass(frozen=True)
class Seconds:
    """Seconds per step, the mean over a turn."""

    wall: float
    processor: float  # of all threads; other programs lengthen it less


Turns = dict[str, list[Seconds]]  # by arm, one entry per round


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every size, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/train.json"))
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each arm in each round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="forward passes under autocast")
    parser.add_argument("--compile", action="store_true", help="all arms by torch.compile")
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES))
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    way = Way(given.device, given.bf16, given.compile)
    settings = vars(given) | {"out": str(given.out), "transformers": transformers.__version__}
    rows: list[Row] = []
    runs: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in given.only:
        tell(f"{name}: {given.rounds} rounds")
        contestants = arms(CASES[name], way)
        turns = take_turns(contestants, rounds=given.rounds, seconds=given.seconds)
        runs[name] = {arm: [asdict(turn) for turn in found] for arm, found in turns.items()}
        rows += speed_rows(name, turns, tokens=CASES[name].tokens)
        rows.append(memory_row(name, contestants))
    write_json(given.out, rows, [], settings, runs)
    print_table(rows, [])


def take_turns(contestants: dict[str, Arm], *, rounds: int, seconds: float) -> Turns:
    """Let the arms take turns, after one step of each that is not counted.

    In a turn an arm takes as many steps as the slowest arm can in ``seconds``, at least one.
    """
    for arm in contestants.values():
        arm.step()
    slowest = max(_timed(arm, 1).wall for arm in contestants.values())
    steps = max(1, round(seconds / slowest))
    turns: Turns = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, arm in contestants.items():
            turns[name].append(_timed(arm, steps))
    return turns


def _timed(arm: Arm, steps: int) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        arm.step()
    return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps)


def speed_rows(name: str, turns: Turns, *, tokens: int) -> list[Row]:
    """Ratios of neighbouring turns, with the times behind them."""
    return [
        Row(
            f"{name}: speed of full rank over transformers",
            _ratio(turns, TRANSFORMERS, FULL, "wall"),
            "×",
            _detail(turns, (FULL, TRANSFORMERS), (TRANSFORMERS, FULL), tokens),
            at_least=1.0,
        ),
        Row(
            f"{name}: time of ReLoRA over full rank",
            _ratio(turns, RELORA, FULL, "wall"),
            "×",
            _detail(turns, (RELORA, FULL), (RELORA, FULL), tokens),
            at_most=1.15,
        ),
    ]


def _ratio(turns: Turns, above: str, below: str, clock: str) -> Spread:
    pairs = zip(turns[above], turns[below], strict=True)
    return Spread.of([getattr(a, clock) / getattr(b, clock) for a, b in pairs])


def _detail(turns: Turns, named: tuple[str, str], ratio: tuple[str, str], tokens: int) -> str:
    """Tokens per second of two arms, and the ratio of their times measured in two other ways."""
    speeds = [f"{tokens / median(t.wall for t in turns[name]):,.0f}" for name in named]
    above, below = (min(t.wall for t in turns[name]) for name in ratio)
    processor = _ratio(turns, *ratio, "processor").median
    return (
        f"{' and '.join(speeds)} tokens/s; processor time {processor:.2f}, "
        f"fastest turns {above / below:.2f}"
    )


def memory_row(name: str, contestants: dict[str, Arm]) -> Row:
    """Gradients and optimizer state of ReLoRA over those of full rank."""
    relora, full = (contestants[arm].memory() for arm in (RELORA, FULL))
    ratio = sum(relora.values()) / sum(full.values())
    parts = [
        f"{part} {relora[part] / 1e6:.2f} and {full[part] / 1e6:.2f} MB"
        for part in ("gradients", "optimizer")
    ]
    return Row(
        f"{name}: gradients and optimizer of ReLoRA over full rank",
        Spread.of([ratio]),
        "×",
        ", ".join(parts),
    )


if __name__ == "__main__":
    main()
