"""Measure `rankscope analyze` against the least that it could cost, and against other tools.

    python -m benchmarks.bench [--peers] [--scratch build/bench]

README.md in this folder says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.comparisons import (
    DTYPES,
    against_floor,
    against_peers,
    against_study,
    each_dtype,
    everything,
)
from benchmarks.elsewhere import elsewhere
from benchmarks.inside import adapters, large, monitor, vectors
from benchmarks.make_checkpoints import (
    DEMO,
    LARGE,
    TINY,
    Experts,
    Model,
    write_adapters,
    write_experts,
    write_run,
)
from benchmarks.report import print_table, write_json
from benchmarks.rounds import Bench, tell
from benchmarks.sizes import experts, growth, layers, many, rows

PARTS: dict[str, Callable[[Bench], None]] = {
    "floor": each_dtype(against_floor),
    "everything": each_dtype(everything),
    "study": against_study,
    "adapters": adapters,
    "vectors": vectors,
    "large": large,
    "layers": layers,
    "experts": experts,
    "growth": growth,
    "many": many,
    "rows": rows,
    "elsewhere": elsewhere,
    "monitor": monitor,
}


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
    write_checkpoints(bench, given.only)
    settings = {**vars(given), "scratch": str(given.scratch), "model": vars(bench.model)}
    try:
        for part in given.only:
            PARTS[part](bench)
        if given.peers:
            against_peers(bench, given.peer_python)
    finally:  # an interrupt does not lose minutes of results
        write_json(bench.scratch / "results.json", bench.rows, bench.missing, settings, bench.runs)
        print_table(bench.rows, bench.missing)


def write_checkpoints(bench: Bench, parts: Collection[str]) -> None:
    """Write all checkpoints that these parts analyse, unless they exist."""
    tell("writing checkpoints")
    is_tiny = bench.model == TINY
    for dtype in DTYPES:
        write_run(bench.run(dtype), bench.model, dtype=dtype, count=bench.counts[0])
    write_run(bench.run("float32-single"), bench.model, dtype="float32", count=1)
    write_adapters(bench.scratch / "adapters", bench.model)
    if "growth" in parts:
        write_run(bench.scratch / "long", bench.model, dtype="bfloat16", count=bench.counts[-1])
    if "many" in parts:
        count = bench.counts[-1] if is_tiny else 10 * bench.counts[-1]
        write_run(bench.scratch / "many", TINY if is_tiny else DEMO, dtype="float32", count=count)
    if "rows" in parts:
        write_run(bench.scratch / "rows-run", TINY if is_tiny else DEMO, dtype="float32", count=3)
    if "experts" in parts:
        experts = Experts(layers=1, experts=4) if is_tiny else Experts()
        write_experts(bench.scratch / "experts", experts, count=1)
    if "layers" in parts:
        for name, model in LARGE.items():
            chosen = TINY if is_tiny else model
            write_run(bench.scratch / f"layer-{name}", chosen, dtype="bfloat16", count=1)


if __name__ == "__main__":
    main()
