"""Which scores are requested, where each is kept, and what it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.contents import Parameter, Skip
from rankscope.checkpoints.file_states import FileStates, states_of_files
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.survey import Survey
from rankscope.durable import safe_name
from rankscope.errors import RankscopeError
from rankscope.evaluation.benchmark import Benchmark
from rankscope.evaluation.held_out_text import held_out_folder
from rankscope.evaluation.open_model import OpenOptions, open_encoder
from rankscope.evaluation.score_files import (
    VERSION,
    PairScores,
    ScoreFile,
    read_scores,
    write_scores,
)
from rankscope.evaluation.text_sets import HELD_OUT
from rankscope.pipeline.choices import Numbers
from rankscope.pipeline.curves import Curve, CurvePlans, CurveStore
from rankscope.pipeline.execution import Plan, skip_of
from rankscope.results.columns import SCORES_FOLDER
from rankscope.results.run_folders import run_folder_name
from rankscope.results.vectors import OtherVersionError
from rankscope.scoring.text_model import TextEncoder

BESIDE = ("*config.json", "*.py")  # files next to weights that say how to compute with them


@dataclass(frozen=True)
class ScoreTask:
    """One checkpoint to score on one benchmark.

    Attributes
    ----------
    key
        Digest of all that the scores depend on.
    files
        What the model is opened from, with each file's state when it was planned.
    """

    key: str
    benchmark: Benchmark
    curve: Curve
    run: Run
    checkpoint: Checkpoint
    encoder: TextEncoder
    files: FileStates = ()
    work: float = 1.0


class ScorePlans(CurvePlans[ScoreTask]):
    """The plans of all runs: one per checkpoint and benchmark."""

    def __init__(
        self,
        found: Survey,
        benchmarks: Sequence[Benchmark],
        options: OpenOptions,
        steps: Numbers | None,
    ) -> None:
        self._benchmarks, self._options = benchmarks, options
        paths = [run.path for run in found.runs]
        tasks = [benchmark.name for benchmark in benchmarks]  # one text may have several names
        super().__init__(found, steps, VERSION, paths, tasks, found.skips, found.notes)

    @property
    def count(self) -> int:
        """Largest possible number of plans."""
        return len(self._benchmarks) * sum(map(len, self.asked.values()))

    def _iter_plans(self, runs: Sequence[Run]) -> Iterator[Plan[ScoreTask]]:
        for run in runs:
            curves: list[tuple[Benchmark, Curve]] = []
            for benchmark in self._benchmarks:
                try:
                    curves.append((benchmark, curve_of(run, benchmark, self._options)))
                except RankscopeError as error:
                    yield Plan(run.name, 0, (), (skip_of(error, run.path),))
            self.curves += [curve for _, curve in curves]
            if any(curve.task == HELD_OUT for _, curve in curves):
                self.folders |= {held_out_folder(run) or str(run.path)}
            for checkpoint in self._asked[run.name] if curves else ():
                yield from self._iter_checkpoint(run, checkpoint, curves)

    def _iter_checkpoint(
        self, run: Run, checkpoint: Checkpoint, curves: Sequence[tuple[Benchmark, Curve]]
    ) -> Iterator[Plan[ScoreTask]]:
        try:
            model = model_state(checkpoint, run, self._options)
        except RankscopeError as error:
            yield Plan(run.name, checkpoint.step, (), (skip_of(error, checkpoint.path),))
            return
        self.folders |= {str(Path(path).parent) for path, _ in model.files}
        for benchmark, curve in curves:
            task = ScoreTask(
                key=score_key(curve, model.digest),
                benchmark=benchmark,
                curve=curve,
                run=run,
                checkpoint=checkpoint,
                encoder=model.encoder,
                files=model.files,
            )
            self.planned.add((run.name, curve.task, checkpoint.step))
            yield Plan(run.name, checkpoint.step, (task,))


class ScoreFiles(CurveStore[ScoreTask, ScoreFile]):
    """The store of an evaluation: one file per run, step and task."""

    def read(self, path: Path) -> list[ScoreFile]:
        """The scores of a file; none where it is absent or of another version."""
        try:
            return [read_scores(path, older=())] if path.exists() else []
        except OtherVersionError:
            return []

    def write(self, path: Path, stored: list[ScoreFile], new: list[ScoreFile]) -> None:
        """Write the scores of a file, which are those of one checkpoint."""
        write_scores(path, *new)

    def fault(self, task: ScoreTask, entry: ScoreFile) -> Skip | None:
        """How many scores are NaN or infinite; None where all are finite."""
        if not entry.non_finite:
            return None
        what = "pair" if isinstance(entry.scores, PairScores) else "document"
        what += "" if entry.non_finite == 1 else "s"
        message = (
            f"no finite score for {entry.non_finite} {what} of {task.benchmark.name} at step "
            f"{entry.step}, so none for the groups that contain them"
        )
        return Skip(str(task.checkpoint.path), "", "nonfinite", message)


def curve_of(run: Run, benchmark: Benchmark, options: OpenOptions) -> Curve:
    """Where the scores of a run on a benchmark go.

    Raises
    ------
    RankscopeError
        If the run lacks what it would be scored on.
    """
    settings = benchmark.settings(run) | {
        "prefix": options.prefix,
        "precision": options.precision,
        "tokenizer": options.tokenizer,
    }
    name = f"{safe_name(benchmark.name)}-{digest_of_values(VERSION, settings)[:8]}"
    folder = f"{SCORES_FOLDER}/{run_folder_name(run.name)}/{name}"
    return Curve(run.name, str(run.path.absolute()), benchmark.name, folder, settings)


@dataclass(frozen=True)
class ModelState:
    """What a checkpoint's model is opened from.

    Attributes
    ----------
    encoder
        Its tokenizer.
    files
        Its files, with their states.
    digest
        The `model_digest` of both.
    """

    encoder: TextEncoder
    files: FileStates
    digest: str


def model_state(checkpoint: Checkpoint, run: Run, options: OpenOptions) -> ModelState:
    """Find what a checkpoint's model is opened from; no weights are read.

    Raises
    ------
    RankscopeError
        If there is no tokenizer, or the checkpoint cannot be read.
    """
    try:
        encoder = open_encoder(checkpoint, run, options)
    except RankscopeError as error:  # most often the same for all checkpoints of the run
        error.path = error.path or str(run.path)
        raise
    files = model_files(checkpoint)
    return ModelState(encoder, states_of_files(files), model_digest(files, encoder))


def model_digest(files: Iterable[Path], encoder: TextEncoder) -> str:
    """Digest of a model by its files and its tokenizer."""
    return digest_of_values(encoder.digest, [fingerprint(path) for path in files])


def score_key(curve: Curve, model: str) -> str:
    """Digest of all that the scores of a model with this `model_digest` depend on."""
    return digest_of_values(VERSION, curve.settings, model)


def model_files(checkpoint: Checkpoint) -> list[Path]:
    """Files that decide, with the tokenizer, how a checkpoint scores a text.

    These are its weights, adapter and base model, with the settings and code next to them; not
    gradients or optimizer states.

    Raises
    ------
    RankscopeError
        If the checkpoint cannot be read.
    """
    parameters = checkpoint.read().parameters.values()
    paths = {Path(path) for parameter in parameters for path in _paths(parameter)}
    for folder in {checkpoint.path, *(path.parent for path in paths)}:
        for pattern in BESIDE:
            paths |= set(folder.glob(pattern))
    return sorted(paths)


def _paths(parameter: Parameter) -> Iterable[str]:
    if parameter.tensor is not None:
        yield from parameter.tensor.paths
    if parameter.adapter is not None:
        yield from (path for tensor in parameter.adapter.tensors for path in tensor.paths)


def digest_of_values(*values: object) -> str:
    """Digest of plain values."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
