"""Measure `rankscope analyze` against the least that it could cost, and against other tools.

    python -m benchmarks.bench [--peers] [--scratch build/bench]

README.md in this folder says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparisons import DTYPES, PARTS, against_peers
from benchmarks.make_checkpoints import (
    DEMO,
    TINY,
    Experts,
    Model,
    write_adapters,
    write_experts,
    write_run,
)
from benchmarks.report import print_table, write_json
from benchmarks.rounds import Bench, tell


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all parts, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=7, help="rounds of parts that take seconds")
    parser.add_argument(
        "--slow-rounds", type=int, default=3, help="rounds of parts that take minutes"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processors that each program gets")
    parser.add_argument("--peers", action="store_true", help="also install and measure competitors")
    parser.add_argument("--peer-python", help="Python interpreter to build their environments with")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="use a toy model, to try this out")
    given = parser.parse_args(arguments)
    bench = Bench(
        given.scratch.resolve(),
        TINY if given.tiny else Model(),
        given.rounds,
        given.slow_rounds,
        given.jobs,
        (2, 4, 8) if given.tiny else (5, 20, 50),
    )
    write_checkpoints(bench)
    settings = {**vars(given), "scratch": str(given.scratch), "model": vars(bench.model)}
    try:
        for part in given.only:
            PARTS[part](bench)
        if given.peers:
            against_peers(bench, given.peer_python)
    finally:  # an interrupt does not lose minutes of results
        write_json(bench.scratch / "results.json", bench.rows, bench.missing, settings, bench.runs)
        print_table(bench.rows, bench.missing)


def write_checkpoints(bench: Bench) -> None:
    """Write all checkpoints that are analysed, unless they exist."""
    tell("writing checkpoints")
    for dtype in DTYPES:
        write_run(bench.run(dtype), bench.model, dtype=dtype, count=bench.counts[0])
    write_run(bench.run("float32-single"), bench.model, dtype="float32", count=1)
    write_run(bench.scratch / "long", bench.model, dtype="bfloat16", count=bench.counts[-1])
    write_adapters(bench.scratch / "adapters", bench.model)
    is_tiny = bench.model == TINY
    many = TINY if is_tiny else DEMO
    write_run(bench.scratch / "many", many, dtype="float32", count=10 * bench.counts[-1])
    write_experts(
        bench.scratch / "experts", Experts(layers=1, experts=4) if is_tiny else Experts(), count=1
    )


if __name__ == "__main__":
    main()
