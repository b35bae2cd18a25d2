"""How the rank of a network's weights and updates evolves over training.

    import rankscope as rs

Measure checkpoints:

    table = rs.analyze("ckpts", out="results")    # one row per matrix and step
    results = rs.open_results("results")          # the same later, with all singular values
    rs.plots.per(table)                           # a figure; help(rs.plots) lists the others
    rs.answer("results")                          # what they show, in a few sentences
    rs.write_report("results")                    # all of it as one HTML page

Explore them yourself; nothing is read before you ask for it:

    run = rs.open_run("ckpts/relora")             # its steps; run[2000] is a checkpoint
    s = rs.singular_values(array)                 # or of a product: rs.LowRank(left, right)
    rs.effective_rank(s)
    rs.spectrum(array)                            # with the interval of each value

Measure a model while it trains, without checkpoints:

    monitor = rs.Monitor(model, "results", every=500)    # and monitor.step(step) in the loop

Check whether the training did what it should:

    rs.diagnose("ckpts", results="results")       # findings, worst first, with what to do

Compare with what the models can do:

    evaluation = rs.evaluate("ckpts", text="novels.jsonl")
    rs.correlate(table, evaluation)               # over the steps of each run
    rs.correlate_runs(table, evaluation)          # over runs, within and between groups of them

See what the layers carry, on a text that all models read:

    rs.represent("ckpts", text="novels.jsonl", out="results")
    rs.open_results("results").similarities       # with the last step, layer by layer
    rs.correlate_runs(table, rs.feature_measures(rs.open_results("results").representations))

Compare two runs with each other, or with what a study published:

    rs.compare("full", "relora", results="results")
    rs.published.weiss2025("spectra")

Train with low-rank updates in a loop of your own (`help(rs.relora)`):

    model = rs.relora.wrap(model, rank=16)
    rs.relora.restart(model, optimizer, step=step)

Errors that you can correct are raised as `RankscopeError`; anything skipped is a
`RankscopeWarning`. Names are imported when they are first used, so ``import rankscope`` itself
costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankscope import plots, published, relora
    from rankscope.analysis.analyze import analyze
    from rankscope.checkpoints.discovery import open_run, open_runs
    from rankscope.checkpoints.run import Checkpoint, Run
    from rankscope.comparison.compare import Comparison, compare
    from rankscope.diagnostics.diagnose import Diagnosis, diagnose
    from rankscope.diagnostics.finding import Finding
    from rankscope.errors import RankscopeError, RankscopeWarning
    from rankscope.evaluation.evaluate import evaluate
    from rankscope.metrics import (
        condition_number,
        effective_rank,
        gaussian_per,
        participation_ratio,
        proportional_effective_rank,
        stable_rank,
    )
    from rankscope.monitoring.lightning_monitor import LightningMonitorCallback
    from rankscope.monitoring.monitor import Monitor
    from rankscope.monitoring.monitor_callback import MonitorCallback
    from rankscope.report.answer import answer
    from rankscope.report.page import write_report
    from rankscope.representing.represent import represent
    from rankscope.results.results import Results, open_results
    from rankscope.spectra.matrices import Dense, LowRank
    from rankscope.spectra.paired_subspaces import principal_cosines, subspace_measures
    from rankscope.spectra.singular_values import singular_values, spectrum
    from rankscope.spectra.spectrum import Spectrum
    from rankscope.statistics.correlation import correlate
    from rankscope.statistics.depth import depth_profile
    from rankscope.statistics.feature_measures import feature_measures
    from rankscope.statistics.replicates import grouped
    from rankscope.statistics.run_correlation import correlate_runs
    from rankscope.watching.watch import watch

_HOMES = {
    "rankscope.analysis.analyze": ("analyze",),
    "rankscope.report.answer": ("answer",),
    "rankscope.report.page": ("write_report",),
    "rankscope.representing.represent": ("represent",),
    "rankscope.results.results": ("Results", "open_results"),
    "rankscope.checkpoints.discovery": ("open_run", "open_runs"),
    "rankscope.checkpoints.run": ("Checkpoint", "Run"),
    "rankscope.comparison.compare": ("Comparison", "compare"),
    "rankscope.diagnostics.diagnose": ("Diagnosis", "diagnose"),
    "rankscope.diagnostics.finding": ("Finding",),
    "rankscope.errors": ("RankscopeError", "RankscopeWarning"),
    "rankscope.evaluation.evaluate": ("evaluate",),
    "rankscope.statistics.correlation": ("correlate",),
    "rankscope.statistics.depth": ("depth_profile",),
    "rankscope.statistics.feature_measures": ("feature_measures",),
    "rankscope.statistics.replicates": ("grouped",),
    "rankscope.statistics.run_correlation": ("correlate_runs",),
    "rankscope.watching.watch": ("watch",),
    "rankscope.monitoring.lightning_monitor": ("LightningMonitorCallback",),
    "rankscope.monitoring.monitor": ("Monitor",),
    "rankscope.monitoring.monitor_callback": ("MonitorCallback",),
    "rankscope.metrics": (
        "condition_number",
        "effective_rank",
        "gaussian_per",
        "participation_ratio",
        "proportional_effective_rank",
        "stable_rank",
    ),
    "rankscope.spectra.matrices": ("Dense", "LowRank"),
    "rankscope.spectra.paired_subspaces": ("principal_cosines", "subspace_measures"),
    "rankscope.spectra.singular_values": ("singular_values", "spectrum"),
    "rankscope.spectra.spectrum": ("Spectrum",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Checkpoint",
    "Comparison",
    "Dense",
    "Diagnosis",
    "Finding",
    "LightningMonitorCallback",
    "LowRank",
    "Monitor",
    "MonitorCallback",
    "RankscopeError",
    "RankscopeWarning",
    "Results",
    "Run",
    "Spectrum",
    "analyze",
    "answer",
    "compare",
    "condition_number",
    "correlate",
    "correlate_runs",
    "depth_profile",
    "diagnose",
    "effective_rank",
    "evaluate",
    "feature_measures",
    "gaussian_per",
    "grouped",
    "open_results",
    "open_run",
    "open_runs",
    "participation_ratio",
    "plots",
    "principal_cosines",
    "proportional_effective_rank",
    "published",
    "relora",
    "represent",
    "singular_values",
    "spectrum",
    "stable_rank",
    "subspace_measures",
    "watch",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in ("plots", "published", "relora"):
        return import_module(f"rankscope.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'rankscope' has no attribute {name!r}")
    found = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = found  # looked up here from now on
    return found


def __dir__() -> list[str]:
    return __all__
