"""The engine of an evaluation: opens one model after another and scores it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.open_model import OpenOptions, open_text_model
from rankscope.evaluation.score_files import ScoreFile
from rankscope.evaluation.score_plans import ScoreTask
from rankscope.pipeline.engine import Failure, Job
from rankscope.pipeline.execution import Meter
from rankscope.scoring.text_model import TextModel


class ModelEngine(AbstractContextManager["ModelEngine"]):
    """Scores checkpoints in this process; a model is opened once for successive benchmarks.

    Parameters
    ----------
    options
        How models are opened.
    meter
        Told of the progress within a benchmark.
    """

    def __init__(self, options: OpenOptions, meter: Meter) -> None:
        self._options, self._meter = options, meter
        self._folder = ""  # of the model that is open
        self._model: TextModel | Failure | None = None

    def __exit__(self, *_: object) -> None:
        self._model = None

    def run(
        self, jobs: Iterable[Job[ScoreTask]]
    ) -> Iterator[tuple[Job[ScoreTask], ScoreFile | Failure]]:
        """Score every job's checkpoint on its benchmark, in order."""
        for job in jobs:
            yield job, self._scored(job.task)

    def _scored(self, task: ScoreTask) -> ScoreFile | Failure:
        try:
            # Before the model is opened: text that cannot be read should cost nothing.
            task.benchmark.prepare(task.encoder, task.run)
        except RankscopeError as error:
            return _failure(error, str(task.run.path))
        model = self._opened(task)
        if isinstance(model, Failure):
            return model
        start = time.monotonic()
        try:
            scores = task.benchmark.score(
                model,
                task.run,
                lambda share: self._meter.show(share, task.run.name, task.checkpoint.step),
            )
        except RankscopeError as error:
            return _failure(error, str(task.checkpoint.path))
        seconds = time.monotonic() - start
        prefix = task.encoder.prefix_name
        return ScoreFile(task.key, task.checkpoint.step, prefix, seconds, scores)

    def _opened(self, task: ScoreTask) -> TextModel | Failure:
        folder = str(task.checkpoint.path)
        if self._model is None or folder != self._folder:
            self._model = None  # first, so that two are never in memory
            self._folder = folder
            try:
                self._model = open_text_model(
                    task.checkpoint, task.run, self._options, encoder=task.encoder
                )
            except WrongSettingError:
                raise
            except RankscopeError as error:
                self._model = _failure(error, folder)
        return self._model


def _failure(error: RankscopeError, path: str) -> Failure:
    return Failure(error.reason, error.message, error.path or path, error.tensor or "")
