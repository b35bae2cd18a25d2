"""What is compared with what, and the limit that the project sets for each figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from benchmarks import peers, programs
from benchmarks.make_checkpoints import STRIDE, TINY
from benchmarks.programs import Program
from benchmarks.report import Row, Spread
from benchmarks.rounds import Bench, fastest, own_seconds, ratio, seconds, tell, walls

DTYPES = ("float32", "bfloat16")


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
    processor = ratio(turns, "analyze", "floor", processor=True)
    bench.rows += [
        Row(
            f"{dtype}: analyze over floor",
            ratio(turns, "analyze", "floor"),
            "×",
            f"{seconds(turns, 'analyze')} over {seconds(turns, 'floor')}; "
            f"fastest runs {fastest(turns, 'analyze') / fastest(turns, 'floor'):.2f} ×, "
            f"processor time {processor.median:.2f} ×",
            at_most=1.25,
        ),
        Row(f"{dtype}: analyze again", walls(turns["again"]), "s", at_most=0.5),
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
    bench.rows.append(
        Row(
            f"{dtype}: weights, updates and OV",
            walls(turns[program.name]),
            "s",
            f"peak memory {peak:.0f} MB",
        )
    )


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


def adapters(bench: Bench) -> None:
    """Spectra from the factors against three dense methods."""
    folder = bench.scratch / "adapters" / f"step-{STRIDE:08d}"
    tell("adapters: from their factors and multiplied out")
    program = programs.dense_adapters(folder, rounds=max(bench.rounds, 3))
    result = json.loads(program.measured().output)
    bench.runs["adapters"] = result
    for method in ("gram", "values_alone", "with_vectors"):
        spread = Spread.of([times[method] / times["factored"] for times in result["rounds"]])
        detail = f"{result['pairs']} pairs in {result['rounds'][0]['factored']:.3f} s"
        words = method.replace("_", " ")
        bench.rows.append(
            Row(f"adapters: product, {words}, over factors", spread, "×", detail, at_least=20.0)
        )


def vectors(bench: Bench) -> None:
    """What singular vectors, and comparing them, cost over the values alone."""
    tell("vectors: short side, both sides, and comparisons")
    program = programs.vectors(bench.run("float32"), rounds=max(bench.rounds, 3))
    result = json.loads(program.measured().output)
    bench.runs["vectors"] = result
    for method, words, at_most in (
        ("short_side", "with all vectors of the short side", 4.0),
        ("both_sides", "and the leading vectors of the long side", None),
        ("by_formula", "comparing two steps, null by formula", None),
        ("by_simulation", "comparing two steps, null simulated", None),
    ):
        spread = Spread.of([times[method] / times["values"] for times in result["rounds"]])
        detail = f"{result['matrices']} matrices in {result['rounds'][0][method]:.3f} s"
        row = Row(f"vectors: {words}, over values", spread, "×", detail, at_most=at_most)
        bench.rows.append(row)


def large(bench: Bench) -> None:
    """What large matrices gain from eigenvalues in two stages, and from an inverse."""
    tell("large matrices: eigenvalues, and small singular values")
    sizes = (128, 256) if bench.model == TINY else (1024, 2048)
    program = programs.large_matrices(sizes, rounds=bench.slow_rounds)
    result = json.loads(program.measured().output)
    bench.runs["large"] = result
    for size, rounds in result["sizes"].items():
        for usual, faster, words in (
            ("one_stage", "two_stages", "eigenvalues in one stage over two"),
            ("qr_svd", "inverse", "QR and SVD over an inverse"),
        ):
            if faster in rounds[0]:
                spread = Spread.of([times[usual] / times[faster] for times in rounds])
                detail = f"{rounds[0][usual]:.2f} over {rounds[0][faster]:.2f} s of processor time"
                bench.rows.append(Row(f"{size} × {size}: {words}", spread, "×", detail))


def growth(bench: Bench) -> None:
    """Time and memory against the number of checkpoints."""
    run = bench.scratch / "long"
    contestants = [
        programs.analyze(
            run,
            bench.out("long"),
            jobs=bench.jobs,
            name=f"{count} checkpoints",
            steps=f"0:{(count - 1) * STRIDE}",
        )
        for count in bench.counts
    ]
    turns = bench.take_turns("growth", contestants, bench.slow_rounds)
    few, some, many = bench.counts
    first, then, last = ([m.wall for m in turns[program.name]] for program in contestants)
    early = [(b - a) / (some - few) for a, b in zip(first, then, strict=True)]
    late = [(b - a) / (many - some) for a, b in zip(then, last, strict=True)]
    peaks = [bench.peak("growth", program) for program in (contestants[0], contestants[-1])]
    bench.rows += [
        Row(
            f"one more checkpoint, {some} to {many} over {few} to {some}",
            Spread.of([b / a for a, b in zip(early, late, strict=True)]),
            "×",
            f"{Spread.of(late).median:.2f} s each",
            at_most=1.2,
        ),
        Row(
            f"peak memory, {many} over {few} checkpoints",
            Spread.of([peaks[1] / max(peaks[0], 1.0)]),
            "×",
            f"{peaks[1]:.0f} MB over {peaks[0]:.0f} MB",
            at_most=1.1,
        ),
    ]


def many(bench: Bench) -> None:
    """Many small matrices: many checkpoints, one more of them, nothing new, and many experts."""
    run, out = bench.scratch / "many", bench.out("many")
    whole = programs.analyze(run, out, jobs=bench.jobs, name="all", components="weight,update,ov")
    again = replace(whole, name="nothing new", fresh=None)
    *others, last = sorted(run.glob("step-*"))
    count = len(others) + 1
    kept = bench.scratch / last.name
    last.rename(kept)
    try:
        bench.take_turns("many: all but one", [whole], 1)
    finally:
        kept.rename(last)
    one = bench.take_turns("many: one more", [replace(whole, name="one more", fresh=None)], 1)
    turns = bench.take_turns("many", [again], bench.rounds) | one
    turns |= bench.take_turns("many: all", [whole], 1)
    bench.rows += [
        Row(
            f"{count} checkpoints, one of them new, over all new: processor time",
            ratio(turns, "one more", "all", processor=True),
            "×",
            f"{turns['one more'][0].processor:.2f} s over {turns['all'][0].processor:.1f} s",
            at_most=0.03,
        ),
        Row(
            "the same checkpoints, nothing new: processor time",
            Spread.of([m.processor for m in turns["nothing new"]]),
            "s",
            at_most=1.0,
        ),
    ]


def experts(bench: Bench) -> None:
    """Matrices per second of a mixture of small experts, by the number of workers."""
    run = bench.scratch / "experts"
    one, more = (
        programs.analyze(run, bench.out("experts"), jobs=jobs, name=f"{jobs} workers")
        for jobs in (1, max(bench.jobs, 2))
    )
    turns = bench.take_turns("experts", [one, more], bench.slow_rounds)
    bench.rows += [
        Row(
            f"small experts: 1 worker over {more.name}",
            ratio(turns, one.name, more.name),
            "×",
            f"{seconds(turns, one.name)} over {seconds(turns, more.name)}",
        ),
        Row(
            "small experts: peak memory of analyze",
            Spread.of([bench.peak("experts", more)]),
            "MB",
            "PSS of all processes",
        ),
    ]


def _each_dtype(part: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    def both(bench: Bench) -> None:
        for dtype in DTYPES:
            part(bench, dtype)

    return both


PARTS: dict[str, Callable[[Bench], None]] = {
    "floor": _each_dtype(against_floor),
    "everything": _each_dtype(everything),
    "study": against_study,
    "adapters": adapters,
    "vectors": vectors,
    "large": large,
    "growth": growth,
    "many": many,
    "experts": experts,
}
