"""A run on a web server over the same run in files."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from benchmarks import programs
from benchmarks.floor import iter_matrices
from benchmarks.programs import Program
from benchmarks.report import Row, Spread
from benchmarks.rounds import Bench, ratio
from tests.checkpoints.web_server import Site, serving

DTYPE, WIDTH = "bfloat16", 2  # bytes of an element


def elsewhere(bench: Bench) -> None:
    """Processor time, and the bytes that one layer takes, with a server on this machine.

    What the server itself takes is not counted.
    """
    run = bench.run(DTYPE)
    site = Site()
    site.add(run)
    here = programs.analyze(run, bench.out("here"), jobs=bench.jobs, name="here")
    with serving(site):
        there = _there(bench, site)
        turns = bench.take_turns("elsewhere", (here, there), bench.slow_rounds)
        site.clear()
        bench.take_turns("elsewhere: one layer", (_there(bench, site, layers="0"),), 1)
    asked = sum(prod(shape) * WIDTH for _, _, shape, _ in iter_matrices(run)) / bench.model.layers
    bench.rows += [
        Row(
            "on a web server over in files: processor time",
            ratio(turns, there.name, here.name, processor=True),
            "×",
            f"wall time {ratio(turns, there.name, here.name).median:.2f} ×",
        ),
        Row(
            "on a web server: bytes fetched for one layer over those of its matrices",
            Spread.of([site.sent / asked]),
            "×",
            f"{site.sent / 1e6:.2f} of {sum(map(len, site.files.values())) / 1e6:.1f} MB",
            at_most=1.1,
        ),
    ]


def _there(bench: Bench, site: Site, **chosen: str) -> Program:
    """The analysis of the served run, with an empty cache."""
    folder = bench.out("elsewhere")
    program = programs.analyze(
        f"{site.url}/run", folder / "results", jobs=bench.jobs, name="there", **chosen
    )
    return replace(
        program, fresh=folder, env={"RANKSCOPE_CACHE": str(folder / "cache"), "NO_PROXY": "*"}
    )
