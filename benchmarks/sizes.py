"""Large matrices, many small ones and many checkpoints, with the limits that the project sets."""

from __future__ import annotations

from dataclasses import replace

from benchmarks import programs
from benchmarks.make_checkpoints import LARGE, STRIDE, TINY
from benchmarks.many_rows import write_many_rows
from benchmarks.report import Row, Spread
from benchmarks.rounds import Bench, nothing_new, ratio, seconds, tell


def layers(bench: Bench) -> None:
    """One layer of a large model over its floor."""
    for name in LARGE:
        run = bench.scratch / f"layer-{name}"
        contestants = (
            programs.floor(run, jobs=bench.jobs),
            programs.analyze(run, bench.out(f"layer-{name}"), jobs=bench.jobs),
        )
        turns = bench.take_turns(f"layer of {name}", contestants, bench.slow_rounds)
        bench.rows += [
            Row(
                f"layer of a {name} model: analyze over floor, processor time",
                ratio(turns, "analyze", "floor", processor=True),
                "×",
                f"{turns['analyze'][0].processor:.1f} over {turns['floor'][0].processor:.1f} s; "
                f"wall time {ratio(turns, 'analyze', 'floor').median:.2f} ×",
                at_most=1.1,
            ),
            Row(
                f"layer of a {name} model: peak memory of analyze",
                Spread.of([bench.peak(f"layer of {name}", contestants[1])]),
                "MB",
                f"PSS of all processes, {bench.jobs} workers",
            ),
        ]


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
    """Many checkpoints of a small model, one more of them, and nothing new."""
    run, out = bench.scratch / "many", bench.out("many")
    whole = programs.analyze(run, out, jobs=bench.jobs, name="all", components="weight,update,ov")
    more = replace(whole, name="one more", fresh=None)
    *others, last = sorted(run.glob("step-*"))
    kept = bench.scratch / last.name
    last.rename(kept)
    try:
        bench.take_turns("many: all but one", [whole], 1)
    finally:
        kept.rename(last)
    turns = bench.take_turns("many: one more", [more], 1)
    again = replace(whole, name="nothing new", fresh=None)
    turns |= bench.take_turns("many: nothing new", [again], bench.rounds)
    turns |= bench.take_turns("many: all", [whole], 1)
    bench.rows += [
        Row(
            f"{len(others) + 1} checkpoints, one of them new, over all new: processor time",
            ratio(turns, "one more", "all", processor=True),
            "×",
            f"{turns['one more'][0].processor:.2f} s over {turns['all'][0].processor:.1f} s",
            at_most=0.03,
        ),
        nothing_new("the same checkpoints", turns["nothing new"], at_most=1.0),
        Row(
            "the same checkpoints: memory of the process that started",
            Spread.of([bench.peak("many", whole, alone=True)]),
            "MB",
            "PSS without its workers",
            at_most=300,
        ),
    ]


def rows(bench: Bench) -> None:
    """A report and a figure of a million rows over those of a few."""
    run, few = bench.scratch / "rows-run", bench.out("few-rows")
    source = programs.analyze(run, few, jobs=bench.jobs, components="weight,update,ov")
    bench.take_turns("rows: a few", [source], 1)
    count, steps = (10_000, 10) if bench.model == TINY else (10**6, 150)
    tell(f"writing {count} rows")
    found = write_many_rows(few, bench.out("many-rows"), rows=count, steps=steps)
    for name, arguments in (("report", ()), ("figures", ("--only", "per-weights"))):
        small, large = (
            programs.drawn(name, bench.out(f"{size}-rows"), *arguments) for size in ("few", "many")
        )
        turns = bench.take_turns(f"rows: {name}", [small, large], 1)
        bench.rows += [
            Row(
                f"{name} of {found} rows: processor time beyond that of a few rows",
                Spread.of([turns[large.name][0].processor - turns[small.name][0].processor]),
                "s",
                f"{turns[small.name][0].processor:.1f} s of a few rows",
                at_most=20 if name == "report" else None,
            ),
            Row(
                f"{name} of {found} rows: peak memory",
                Spread.of([bench.peak(f"rows: {name}", large)]),
                "MB",
                "PSS",
                at_most=400,
            ),
        ]


def experts(bench: Bench) -> None:
    """A mixture of small experts over its floor, by the number of workers, and with nothing new."""
    run, out = bench.scratch / "experts", bench.out("experts")
    jobs = max(bench.jobs, 2)
    one, more = (
        programs.analyze(run, out, jobs=count, name=f"{count} workers") for count in (1, jobs)
    )
    floor = programs.floor(run, jobs=jobs)
    turns = bench.take_turns("experts", [floor, one, more], bench.slow_rounds)
    again = programs.again(run, out, jobs=jobs)
    turns |= bench.take_turns("experts again", [again], bench.rounds)
    bench.rows += [
        Row(
            "small experts: analyze over floor, processor time",
            ratio(turns, more.name, floor.name, processor=True),
            "×",
            f"{turns[more.name][0].processor:.1f} over {turns[floor.name][0].processor:.1f} s",
        ),
        Row(
            f"small experts: 1 worker over {more.name}",
            ratio(turns, one.name, more.name),
            "×",
            f"{seconds(turns, one.name)} over {seconds(turns, more.name)}",
        ),
        nothing_new("small experts", turns[again.name], at_most=1.0),
        Row(
            "small experts: peak memory of analyze",
            Spread.of([bench.peak("experts", more)]),
            "MB",
            "PSS of all processes",
        ),
    ]
