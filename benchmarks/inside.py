"""Parts of the work that are measured inside one process, with the limits that the project sets."""

from __future__ import annotations

import json
from importlib.util import find_spec

from benchmarks import programs
from benchmarks.make_checkpoints import STRIDE, TINY
from benchmarks.report import Row, Spread
from benchmarks.rounds import Bench, ratio, tell


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
    run = bench.run("float32")
    plain = programs.analyze(run, bench.out("plain"), jobs=bench.jobs)
    more = programs.analyze(
        run, bench.out("subspaces"), jobs=bench.jobs, name="with subspaces", subspaces="16"
    )
    turns = bench.take_turns("subspaces", (plain, more), 1)
    bench.rows.append(
        Row(
            "analyze --subspaces 16 over analyze: processor time",
            ratio(turns, more.name, plain.name, processor=True),
            "×",
        )
    )


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


def monitor(bench: Bench) -> None:
    """What a monitor takes of a training's time."""
    if find_spec("torch") is None:
        bench.missing.append("monitor: torch is not installed")
        return
    tell("monitor: training with and without")
    sizes = ("--width", "32", "--steps", "20") if bench.model == TINY else ()
    program = programs.monitor_cost(*sizes, rounds=bench.slow_rounds)
    result = json.loads(program.measured().output)
    bench.runs["monitor"] = result
    rounds = result["rounds"]
    bench.rows += [
        Row(
            "monitor: its share of the training's time",
            Spread.of([100 * each["monitored"]["share"] for each in rounds]),
            "%",
            f"{rounds[0]['rows']} rows; processor time {rounds[0]['monitored']['recorder']:.1f} s "
            f"in its own process, {rounds[0]['plain']['processor']:.1f} s of the training",
            at_most=2.0,
        ),
        Row(
            "monitor: training with over without, processor time of its thread",
            Spread.of(
                [each["monitored"]["processor"] / each["plain"]["processor"] for each in rounds]
            ),
            "×",
        ),
    ]
