"""The programs that are compared, with the same resources for all of them.

Every program gets as many processors as ``analyze`` has workers. The floor and ``analyze`` use them
as processes with one thread each; the others, which have one process, as that many BLAS threads, or
one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.memory import Measured, measure
from rankscope.analysis.local_workers import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# If it were set, every start would compile rankscope again, as no installed package does.
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Program:
    """A command, additions to its environment, and the folder that is removed before it runs.

    Numbers of threads, and whether byte code is written, are not inherited from the process that
    starts the benchmark.
    """

    name: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    fresh: Path | None = None

    def measured(self, *, watch_memory: bool = False) -> Measured:
        """Run the command."""
        if self.fresh is not None:
            shutil.rmtree(self.fresh, ignore_errors=True)
        foreign = (*THREADS, NO_BYTECODE)
        inherited = {name: value for name, value in os.environ.items() if name not in foreign}
        return measure(self.command, env=inherited | self.env, watch_memory=watch_memory)


def floor(run: Path, *, jobs: int) -> Program:
    """The bare loop over all matrices, in the environment of the workers of ``analyze``."""
    program = _module("floor", str(run), "--jobs", str(jobs), threads=1)
    return replace(program, env=program.env | ENVIRONMENT)


def study(run: Path, threads: int | None) -> Program:
    """A float32 SVD with vectors, repeated for each of two metrics."""
    return _module("study_baseline", str(run), threads=threads)


def dense_adapters(folder: Path, *, rounds: int) -> Program:
    """Adapters from their factors and multiplied out, taking turns."""
    return _module("dense_adapters", str(folder), "--rounds", str(rounds), threads=1)


def vectors(run: Path, *, rounds: int) -> Program:
    """Singular vectors and their comparisons over values alone, taking turns."""
    return _module("vectors", str(run), "--rounds", str(rounds), threads=1)


def large_matrices(sizes: Sequence[int], *, rounds: int) -> Program:
    """Faster ways for large matrices over the usual ones, taking turns."""
    return _module("large_matrices", *map(str, sizes), "--rounds", str(rounds), threads=1)


def monitor_cost(*sizes: str, rounds: int) -> Program:
    """A training with and without a monitor, taking turns."""
    return _module("monitor_cost", *sizes, "--rounds", str(rounds), threads=1)


def scoring(scorer: str, task: str, case: str, *, threads: int) -> Program:
    """Scoring pairs or text once, with one of the scorers that are compared."""
    return _module("evaluation_baselines", scorer, task, "--case", case, threads=threads)


def analyze(
    run: Path | str, out: Path, *, jobs: int, name: str = "analyze", **chosen: str
) -> Program:
    """``rankscope analyze`` of the weights into a new folder; ``chosen`` are further options."""
    return _analyze(name, run, out, jobs, {"components": "weight", **chosen}, fresh=out)


def again(run: Path, out: Path, *, jobs: int) -> Program:
    """The same call as `analyze`, with nothing new to compute."""
    return _analyze("again", run, out, jobs, {"components": "weight"}, fresh=None)


def drawn(command: str, results: Path, *arguments: str) -> Program:
    """``rankscope report`` or ``rankscope figures`` of a results folder."""
    script = str(Path(sys.executable).with_name("rankscope"))
    return Program(f"{command} {results.name}", (script, command, str(results), *arguments))


def peer(name: str, python: Path, run: Path, threads: int | None) -> Program:
    """A competitor, in the environment that it is installed in."""
    script = ROOT / "benchmarks" / f"{name.removesuffix('-core')}_baseline.py"
    return Program(name, (str(python), str(script), str(run)), _threads(threads))


def _analyze(
    name: str, run: Path | str, out: Path, jobs: int, options: dict[str, str], *, fresh: Path | None
) -> Program:
    script = str(Path(sys.executable).with_name("rankscope"))
    given = [word for key, value in options.items() for word in (f"--{key}", value)]
    command = (script, "analyze", str(run), "--out", str(out), "--jobs", str(jobs), *given)
    return Program(name, command, fresh=fresh)


def _module(name: str, *arguments: str, threads: int | None) -> Program:
    env = {**_threads(threads), "PYTHONPATH": str(ROOT)}
    return Program(name, (sys.executable, "-m", f"benchmarks.{name}", *arguments), env)


def _threads(count: int | None) -> dict[str, str]:
    """Environment that sets the number of BLAS threads; None for the program's default."""
    return {} if count is None else dict.fromkeys(THREADS, str(count))
