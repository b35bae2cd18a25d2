"""The losses of power as rows of the table of reliability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rankscope.evaluation.evaluate import evaluate
from rankscope.report.page import write_report
from tests.reliability.power_loss import results, training
from tests.reliability.power_loss.disk import Counts, Size
from tests.reliability.power_loss.sample import Sample
from tests.reliability.row import Row

QUICK = Sample(every=40, resumed=60, lost_again=60)
# Of a training's 18,000 states each costs a start of the trainer: all take two hours.
FULL_TRAINING = Sample(size=Size(), every=16, resumed=40, lost_again=40)
FULL = Sample(size=Size(), resumed=40, lost_again=40)


def power_losses(scratch: Path, is_full: bool) -> Iterator[Row]:
    """A training, and the calls that analyse, evaluate and report it, lose their power."""
    sample = FULL if is_full else QUICK
    of_training = FULL_TRAINING if is_full else QUICK
    trained = training.recorded_training(scratch / "training")
    yield _row(
        "losses of power in a training",
        lambda counts: training.violations(trained, of_training, counts),
        of_training,
    )
    run = training.plain_training(scratch / "trained")
    calls: Mapping[str, results.Call] = {
        **results.analyses(run),
        "scores": lambda out: evaluate(run, out=out, held_out=True),
        "other scores": lambda out: evaluate(run, out=out, held_out=True, window=4),
    }
    if is_full:
        calls = {**calls, "a report": lambda out: write_report(out, out=out / "report.html")}
    made = results.recorded_calls(calls, scratch / "results" / "out")
    yield _row(
        "losses of power in analyses, evaluations and reports",
        lambda counts: results.violations(made, sample, counts),
        sample,
    )


def _row(what: str, tried: Callable[[Counts], Iterator[str]], sample: Sample) -> Row:
    counts = Counts()
    short = Counter(one.rpartition("): ")[2] for one in tried(counts))
    return Row(
        what,
        counts.states // sample.every,
        "states",
        tuple(short),
        f"after {counts.prefixes} operations, for {counts.sampled} of them not all combinations; "
        f"seed {sample.seed}",
    )
