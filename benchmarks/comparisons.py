"""The standard case against its floor and other tools, with the limits that the project sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks import peers, programs
from benchmarks.programs import Program
from benchmarks.report import Row, Spread
from benchmarks.rounds import (
    Bench,
    fastest,
    nothing_new,
    own_seconds,
    ratio,
    seconds,
    tell,
    walls,
)

DTYPES = ("float32", "bfloat16")


OVER_FLOOR = 1.15


def against_floor(bench: Bench, dtype: str) -> None:
    """Time and memory of the floor, `analyze`, and `analyze` again with nothing new."""
    run, out = bench.run(dtype), bench.out(dtype)
    contestants = (
        programs.floor(run, jobs=bench.jobs),
        programs.analyze(run, out, jobs=bench.jobs),
        programs.again(run, out, jobs=bench.jobs),
    )
    bench.take_turns(f"{dtype}: warm-up", contestants, 1)
    turns = bench.take_turns(dtype, contestants, bench.rounds)
    bench.rows += [
        Row(
            f"{dtype}: analyze over floor",
            ratio(turns, "analyze", "floor"),
            "×",
            f"{seconds(turns, 'analyze')} over {seconds(turns, 'floor')}; "
            f"fastest runs {fastest(turns, 'analyze') / fastest(turns, 'floor'):.2f} ×",
            at_most=OVER_FLOOR,
        ),
        Row(
            f"{dtype}: analyze over floor, processor time",
            ratio(turns, "analyze", "floor", processor=True),
            "×",
            at_most=OVER_FLOOR,
        ),
        nothing_new(f"{dtype}, {bench.counts[0]} checkpoints", turns["again"], at_most=0.35),
        Row(
            f"{dtype}: peak memory of analyze",
            Spread.of([bench.peak(dtype, contestants[1])]),
            "MB",
            "PSS of all processes",
            at_most=250,
        ),
    ]


def everything(bench: Bench, dtype: str) -> None:
    """All components that are analysed by default; reported without a limit."""
    out = bench.out(f"{dtype}-all")
    components = "weight,update,ov"
    program = programs.analyze(
        bench.run(dtype), out, jobs=bench.jobs, name="all components", components=components
    )
    turns = bench.take_turns(f"{dtype}: all components", (program,), 1)
    peak = bench.peak(f"{dtype}: all components", program)
    again = replace(program, name="again", fresh=None)
    turns |= bench.take_turns(f"{dtype}: all components again", (again,), bench.rounds)
    bench.rows += [
        Row(
            f"{dtype}: weights, updates and OV",
            walls(turns[program.name]),
            "s",
            f"peak memory {peak:.0f} MB",
        ),
        nothing_new(f"{dtype}, weights, updates and OV", turns["again"], at_most=0.35),
    ]


def against_study(bench: Bench) -> None:
    """A float32 SVD with vectors, repeated for each of two metrics."""

    def make(run: str, threads: int | None) -> Program:
        return programs.study(bench.run(run), threads)

    threads = bench.faster(make)
    for dtype in DTYPES:
        _against(bench, dtype, make, threads, at_least=15.0)


def against_peers(bench: Bench, interpreter: str | None) -> None:
    """Every competitor that can be installed."""
    for name, at_least in (("weightwatcher", 8.0), ("diffract-core", 10.0)):
        tell(f"installing {name}, unless it is installed")
        peer = peers.installed(name, bench.scratch, interpreter=interpreter)
        try:
            _against_peer(bench, peer, at_least=at_least)
        except RuntimeError as error:
            bench.missing.append(f"{name}: {str(error).splitlines()[-1]}")


def _against_peer(bench: Bench, peer: peers.Peer, *, at_least: float) -> None:
    python = peer.python
    if python is None:
        raise RuntimeError(peer.problem)

    def make(run: str, threads: int | None) -> Program:
        return programs.peer(peer.name, python, bench.run(run), threads)

    threads = bench.faster(make)
    for dtype in DTYPES:
        _against(bench, dtype, make, threads, at_least=at_least)
        _memory_against(bench, dtype, make(dtype, threads))


def _against(
    bench: Bench,
    dtype: str,
    make: Callable[[str, int | None], Program],
    threads: int,
    *,
    at_least: float,
) -> None:
    """A program with its default number of threads, and with the number that is fastest."""
    ours = programs.analyze(bench.run(dtype), bench.out(dtype), jobs=bench.jobs)
    untuned = make(dtype, None)
    tuned = replace(make(dtype, threads), name=f"{untuned.name}, BLAS threads {threads}")
    contestants = (untuned, ours, tuned)
    turns = bench.take_turns(f"{dtype}: {untuned.name}", contestants, bench.slow_rounds)
    for name in (untuned.name, tuned.name):
        processor = ratio(turns, name, "analyze", processor=True)
        own = own_seconds(turns[name])
        detail = (
            f"{seconds(turns, name)} over {seconds(turns, 'analyze')}; "
            f"processor time {processor.median:.1f} ×"
        ) + (f"; its analysis alone {own:.1f} s" if own else "")
        compared = ratio(turns, name, "analyze")
        bench.rows.append(
            Row(f"{dtype}: {name} over analyze", compared, "×", detail, at_least=at_least)
        )


def _memory_against(bench: Bench, dtype: str, program: Program) -> None:
    ours = programs.analyze(bench.run(dtype), bench.out(dtype), jobs=bench.jobs)
    title = f"{dtype}: against {program.name}"
    mine, theirs = bench.peak(title, ours), bench.peak(title, program)
    bench.rows.append(
        Row(
            f"{dtype}: memory of {program.name} over analyze",
            Spread.of([theirs / max(mine, 1.0)]),
            "×",
            f"{theirs:.0f} MB over {mine:.0f} MB",
            at_least=3.0 if program.name == "weightwatcher" else None,
        )
    )


def each_dtype(part: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    """The part in every storage format, one after the other."""

    def both(bench: Bench) -> None:
        for dtype in DTYPES:
            part(bench, dtype)

    return both
