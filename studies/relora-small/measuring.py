"""Measuring the study's runs: every number comes from a command of rankscope."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from arms import Run, Scale
from rankscope.durable import write_file
from training import RANKSCOPE

GROUP = r"(.*)-[\d.]+e-3-seed\d+"  # runs of one arm
HEADLINE = (("full", "relora"), ("full", "as-published"), ("relora", "as-published"))
# What every run is measured by, and what only the runs at each arm's best rate are.
FEW = "weight,update,cumulative_update"
SCORES = ("--held-out", "--agreement", "--no-document-perplexity")
ALL = "weight,update,cumulative_update,merge,merged_total,gradient,ov,qk"


def measure(scale: Scale, runs: Sequence[Run], best: Sequence[Run], steps: int) -> None:
    """Analyse, evaluate, compare and diagnose; what is already there is not computed again.

    The results are in folders of their own: ``rates`` (all runs, and scores of their last
    checkpoints) and ``seeds`` (those at the best rates, by more); and files, ``compare-A-B.csv``,
    ``findings.json`` and ``correlations.csv``.
    """
    every = [str(scale.checkpoints / run.name) for run in runs]
    chosen = [str(scale.checkpoints / run.name) for run in best]
    rates, seeds = (str(scale.results / name) for name in ("rates", "seeds"))
    _call("analyze", *every, "--components", FEW, "--out", rates)
    _call("analyze", *chosen, "--components", ALL, "--subspaces", "10", "--out", seeds)
    some = ("--max-documents", str(scale.documents)) if scale.documents else ()
    _call("evaluate", *every, "--steps", str(steps), *SCORES, *some, "--out", rates)
    arms = {run.arm for run in best}
    for a, b in HEADLINE:
        if {a, b} <= arms:
            words = ("--group", GROUP, "--no-weights", "--all", "--table", "csv")
            found = _call("compare", a, b, "--results", seeds, *words)
            write_file(scale.results / f"compare-{a}-{b}.csv", found.encode())
    findings = _call("diagnose", *chosen, "--results", seeds, "--json", accepted=(0, 1, 3))
    write_file(scale.results / "findings.json", findings.encode())
    correlations = _call("correlate", rates, "--group", GROUP, "--table", "csv")
    write_file(scale.results / "correlations.csv", correlations.encode())


def _call(*words: str, accepted: Sequence[int] = (0, 3)) -> str:
    print("rankscope", words[0], "…", flush=True)
    done = subprocess.run([*RANKSCOPE, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in accepted:
        raise RuntimeError(f"rankscope {' '.join(words)} ended with exit code {done.returncode}")
    return done.stdout
