"""The engine of an evaluation: opens one model after another and scores it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.open_model import OpenOptions, open_text_model
from rankscope.evaluation.score_files import ScoreFile
from rankscope.evaluation.score_plans import ScoreTask
from rankscope.pipeline.engine import Failure, Job
from rankscope.pipeline.execution import Meter
from rankscope.scoring.text_model import TextEncoder, TextModel


class ModelEngine(AbstractContextManager["ModelEngine"]):
    """Scores checkpoints in this process; a model is opened once for successive benchmarks.

    Parameters
    ----------
    options
        How models are opened.
    meter
        Shows the progress within a benchmark.
    """

    def __init__(self, options: OpenOptions, meter: Meter) -> None:
        self._models, self._meter = OneModel(options), meter

    def __exit__(self, *_: object) -> None:
        self._models.close()

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
            return failure_of(error, task.run.path)
        model = self._models.opened(task.checkpoint, task.run, task.encoder)
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
            return failure_of(error, task.checkpoint.path)
        seconds = time.monotonic() - start
        prefix = task.encoder.prefix_name
        return ScoreFile(task.key, task.checkpoint.step, prefix, seconds, scores)


class OneModel:
    """Opens models, of which the last stays open: successive tasks are often of one checkpoint."""

    def __init__(self, options: OpenOptions) -> None:
        self._options = options
        self._folder = ""  # of the model that is open
        self._model: TextModel | Failure | None = None

    def close(self) -> None:
        """Let the model go."""
        self._model = None

    def opened(self, checkpoint: Checkpoint, run: Run, encoder: TextEncoder) -> TextModel | Failure:
        """The model of a checkpoint with this tokenizer, or why it cannot be opened.

        Raises
        ------
        WrongSettingError
            If a GPU is requested and there is none.
        """
        folder = str(checkpoint.path)
        if self._model is None or folder != self._folder:
            self._model = None  # first, so that two are never in memory
            self._folder = folder
            try:
                self._model = open_text_model(checkpoint, run, self._options, encoder=encoder)
            except WrongSettingError:
                raise
            except RankscopeError as error:
                self._model = failure_of(error, checkpoint.path)
        return self._model


def failure_of(error: RankscopeError, path: Path) -> Failure:
    """What an error says, about the file that it names or else about ``path``."""
    return Failure(error.reason, error.message, error.path or str(path), error.tensor or "")
