"""What matrices depend on beside their checkpoint: the one before, merges, weights before these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.before_merges import merged_before, origins_of
from rankscope.checkpoints.contents import Skip, restarts_between
from rankscope.checkpoints.continuity import difference, difference_of_traces, trace_of
from rankscope.checkpoints.file_states import states_of_files
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.merges import read_merges
from rankscope.checkpoints.steps import step_in_name
from rankscope.components.component import Moment
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError
from rankscope.evaluation.score_plans import digest_of_values, model_files
from rankscope.pipeline.execution import skip_of
from rankscope.representing.collected import Energy
from rankscope.representing.feature_tasks import FeatureTask


def with_history(
    task: FeatureTask, wanted: Sequence[Energy]
) -> tuple[FeatureTask, tuple[Skip, ...]]:
    """The task with all that the wanted matrices depend on; or why it has no update."""
    run, skips = task.run, tuple[Skip, ...]()
    if "update" in wanted:
        task, skips = _since_previous(task)
    merges = _merge_files(task)
    if not merges:
        return task, skips
    first = run.checkpoints[0]
    try:
        # Before the first merge the weights had a rounding that is in them ever since.
        weights = model_files(first) if "weight" in wanted else []
    except RankscopeError:  # reported where that checkpoint itself is read
        weights = []
    return _depending_on(task, [*weights, *merges]), skips


def _since_previous(task: FeatureTask) -> tuple[FeatureTask, tuple[Skip, ...]]:
    """The task with the checkpoint before, which its update begins at; or why it has none."""
    earlier = [one for one in task.run if one.step < task.checkpoint.step]
    if not earlier:
        return task, ()
    previous, now = earlier[-1], task.checkpoint
    try:
        apart = difference_of_traces(trace_of(previous.path), trace_of(now.path))
        apart = apart or difference(previous.contents, now.contents)
        if not apart:
            return _depending_on(replace(task, previous=previous), model_files(previous)), ()
    except RankscopeError as error:
        return task, (skip_of(error, previous.path),)
    message = f"does not continue step {previous.step}: {apart}. It has no update"
    return task, (Skip(str(now.path), "", "break", message),)


def _merge_files(task: FeatureTask) -> list[Path]:
    """Merges up to its step; later ones change nothing of it, but that there are any."""
    files = task.run.merge_files
    return [*files[:1], *(one for one in files[1:] if _step(one) <= task.checkpoint.step)]


def _step(path: Path) -> int:
    return step_in_name(path.stem) or 0


def _depending_on(task: FeatureTask, files: Sequence[Path]) -> FeatureTask:
    """The task with other files that its numbers depend on."""
    return replace(
        task,
        key=digest_of_values(task.key, [_fingerprint(path) for path in files]),
        files=tuple(dict((*task.files, *states_of_files(files))).items()),
    )


def _fingerprint(path: Path) -> str:
    """Empty for a file that cannot be read, which differs from what it may be later."""
    try:
        return fingerprint(path)
    except RankscopeError:
        return ""


def moment_of(task: FeatureTask) -> Moment:
    """The checkpoint, the one that its updates are measured from, and weights before merges."""
    now, previous = task.checkpoint, task.previous
    merges = read_merges(task.run.merge_files)
    later = now.read()
    moment = Moment(later, origins=merged_before(now.step, merges, origins_of(task.run, merges)))
    if previous is None:
        return moment
    earlier = previous.read()
    window = Window(
        previous.step,
        now.step,
        merges,
        None if later.restarts is None else restarts_between(earlier, later),
        (earlier.adapted, later.adapted),
    )
    return replace(moment, previous=earlier, since_previous=window)
