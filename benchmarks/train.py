"""Measure a step of the trainer against transformers, and of ReLoRA against full rank.

    python -m benchmarks.train [--compile] [--bf16] [--device cuda]

See README.md beside this file for how to read the table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from benchmarks.report import Row, Spread, print_table, write_json
from benchmarks.rounds import tell
from benchmarks.training_arms import CASES, FULL, RELORA, TRANSFORMERS, Arm, Way, arms

Times = dict[str, list[float]]  # seconds a step by arm, one a round


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every size, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/train.json"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each arm in each round")
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
    runs: dict[str, Times] = {}
    for name in given.only:
        tell(f"{name}: {given.rounds} rounds")
        contestants = arms(CASES[name], way)
        runs[name] = take_turns(contestants, rounds=given.rounds, seconds=given.seconds)
        rows += speed_rows(name, runs[name], tokens=CASES[name].tokens)
        rows.append(memory_row(name, contestants))
    write_json(given.out, rows, [], settings, runs)
    print_table(rows, [])


def take_turns(contestants: dict[str, Arm], *, rounds: int, seconds: float) -> Times:
    """Seconds a step of every arm, which take turns; after a round that is not counted.

    In each turn an arm takes so many steps as the slowest can in ``seconds``, at least one.
    """
    for arm in contestants.values():
        arm.step()
    steps = max(1, round(seconds / max(_seconds_a_step(a, 1) for a in contestants.values())))
    times: Times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, arm in contestants.items():
            times[name].append(_seconds_a_step(arm, steps))
    return times


def _seconds_a_step(arm: Arm, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        arm.step()  # it returns the loss as a number, so a GPU has finished too
    return (time.perf_counter() - start) / steps


def speed_rows(name: str, times: Times, *, tokens: int) -> list[Row]:
    """Ratios of neighbouring turns, and the tokens a second that they are made of."""
    speed = {arm: f"{tokens / Spread.of(found).median:,.0f}" for arm, found in times.items()}
    return [
        Row(
            f"{name}: speed of full rank over transformers",
            _ratio(times[TRANSFORMERS], times[FULL]),
            "×",
            f"{speed[FULL]} and {speed[TRANSFORMERS]} tokens/s",
            at_least=1.0,
        ),
        Row(
            f"{name}: time of ReLoRA over full rank",
            _ratio(times[RELORA], times[FULL]),
            "×",
            f"{speed[RELORA]} and {speed[FULL]} tokens/s; of the fastest turns "
            f"{min(times[RELORA]) / min(times[FULL]):.2f}",
            at_most=1.15,
        ),
    ]


def _ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


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
