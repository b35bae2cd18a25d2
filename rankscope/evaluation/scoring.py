"""Scores of every checkpoint on every task: those that are missing are computed and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Checkpoint, Run, listed
from rankscope.checkpoints.steps import StepRange, check_range, in_range
from rankscope.durable import require_writable
from rankscope.errors import RankscopeError
from rankscope.evaluation.open_model import OpenOptions, open_encoder, open_text_model
from rankscope.evaluation.score_files import ScoreFile, holds, write_scores
from rankscope.evaluation.score_keys import Series, model_digest, score_key, score_path, series_of
from rankscope.evaluation.tasks import Task
from rankscope.scoring.text_model import TextEncoder

Progress = Callable[[float, str], None]  # share of all the work that is done; what is worked on


@dataclass
class Evaluation:
    """What one call found and did.

    Attributes
    ----------
    series
        Of each run and task, where the scores with the settings of this call are.
    asked
        Steps that were asked for, of each run.
    scored
        Checkpoints whose scores are there and true, by the folder of their series and their step.
    skips
        What could not be evaluated, and why.
    computed
        How many files of scores were written; the others were there.
    """

    series: list[Series] = field(default_factory=list)
    asked: dict[str, list[int]] = field(default_factory=dict)
    scored: dict[str, dict[int, Path]] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    computed: int = 0

    def skip(self, error: RankscopeError, path: Path) -> None:
        """Note what went wrong with a run or a checkpoint; the same thing once."""
        skip = Skip(error.path or str(path), error.tensor or "", error.reason, error.message)
        if skip not in self.skips:
            self.skips.append(skip)

    def keep(self, series: Series, checkpoint: Checkpoint) -> None:
        """Note that the scores of a checkpoint are there."""
        self.scored.setdefault(series.folder, {})[checkpoint.step] = checkpoint.path


def evaluate_runs(
    runs: Sequence[Run],
    tasks: Sequence[Task],
    *,
    out: Path,
    options: OpenOptions,
    steps: StepRange | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Do the work of `rankscope.evaluate` on opened runs.

    Each file of scores is written as soon as it is complete.

    Raises
    ------
    RankscopeError
        If no run has a step that is asked for.
    OSError
        If ``out`` cannot be written.
    """
    check_range(steps)
    chosen = {run.name: [c for c in run if in_range(c.step, steps)] for run in runs}
    total, done = sum(map(len, chosen.values())), 0
    if not total:
        have = "; ".join(f"{run.name}: {listed(run.steps)}" for run in runs)
        raise RankscopeError(f"none of the steps asked for is there; {have}")
    require_writable(out)
    found = Evaluation(asked={name: [c.step for c in some] for name, some in chosen.items()})
    for run in runs:
        planned = _planned(run, tasks, options, found)
        for checkpoint in chosen[run.name] if planned else ():
            label = f"{run.name}, step {checkpoint.step}"

            def tell(share: float, done: int = done, label: str = label) -> None:
                if progress is not None:
                    progress((done + share) / total, label)

            try:
                _evaluate_checkpoint(run, checkpoint, planned, out, options, found, tell)
            except RankscopeError as error:
                found.skip(error, checkpoint.path)
            done += 1
    return found


def _planned(
    run: Run, tasks: Sequence[Task], options: OpenOptions, found: Evaluation
) -> list[tuple[Task, Series]]:
    """Tasks that the run can be scored on, and where the scores go."""
    planned = []
    for task in tasks:
        try:
            planned.append((task, series_of(run, task, options)))
        except RankscopeError as error:
            found.skip(error, run.path)
    found.series += [series for _, series in planned]
    return planned


def _evaluate_checkpoint(
    run: Run,
    checkpoint: Checkpoint,
    planned: Sequence[tuple[Task, Series]],
    out: Path,
    options: OpenOptions,
    found: Evaluation,
    tell: Callable[[float], None],
) -> None:
    """Compute what is not there; the model is opened for all of it at once, or not at all."""
    try:
        encoder = open_encoder(checkpoint, run, options)
    except RankscopeError as error:
        found.skip(error, run.path)  # the same for all checkpoints of the run, most often
        return
    model_key = model_digest(checkpoint, encoder)
    missing = []
    for task, series in planned:
        path, key = score_path(out, series.folder, checkpoint.step), score_key(series, model_key)
        if holds(path, key):
            found.keep(series, checkpoint)
        elif _is_prepared(task, encoder, run, found):
            missing.append((task, series, path, key))
    if not missing:
        return
    model = open_text_model(checkpoint, run, options, encoder=encoder)
    for number, (task, series, path, key) in enumerate(missing):

        def tell_task(share: float, number: int = number) -> None:
            tell((number + share) / len(missing))

        try:
            start = time.monotonic()
            scores = task.score(model, run, tell_task)
            seconds = time.monotonic() - start
        except RankscopeError as error:
            found.skip(error, checkpoint.path)
            continue
        kept = ScoreFile(key, checkpoint.step, encoder.prefix_name, seconds, scores)
        write_scores(path, kept)
        found.keep(series, checkpoint)
        found.computed += 1


def _is_prepared(task: Task, encoder: TextEncoder, run: Run, found: Evaluation) -> bool:
    """Whether the text of a task can be read: before the model is opened, not only after it."""
    try:
        task.prepare(encoder, run)
    except RankscopeError as error:
        found.skip(error, run.path)
        return False
    return True
