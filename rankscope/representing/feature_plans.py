"""Which features are requested, where their numbers are kept, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.continuity import difference, difference_of_traces, trace_of
from rankscope.checkpoints.file_states import FileStates, state_of
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.survey import Survey
from rankscope.durable import remove_file, safe_name
from rankscope.errors import RankscopeError
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.score_plans import digest_of, model_files, model_state, score_key
from rankscope.evaluation.text_sets import TextSet
from rankscope.pipeline.choices import Numbers
from rankscope.pipeline.curves import Curve, CurvePlans
from rankscope.pipeline.engine import Failure
from rankscope.pipeline.execution import Plan, skip_of, skip_of_failure
from rankscope.representations.feature_metrics import FeatureStatus
from rankscope.representing.collected import Energy
from rankscope.representing.feature_files import (
    VERSION,
    FeatureFile,
    KeptFeatures,
    Row,
    feature_path,
    kept_path,
    read_features,
    write_features,
    write_kept,
)
from rankscope.representing.probe_windows import ProbeOptions
from rankscope.representing.stored_activations import activation_files
from rankscope.results.columns import REPRESENTATIONS_FOLDER
from rankscope.results.vectors import OtherVersionError
from rankscope.scoring.text_model import TextEncoder

STORED = "stored"  # the kind of place of activations that a training stored
INPUTS = "inputs"  # the kind of place of what weights read

Series = tuple[str, str, str, str]  # run, text, features, kind of place


def series_of(curve: Curve) -> Series:
    """What the tables have once: later settings of the same series replace earlier ones."""
    return curve.run, curve.task, curve.settings["features"], curve.settings["at"]


@dataclass(frozen=True)
class Asked:
    """What every checkpoint is asked for.

    Attributes
    ----------
    text
        The text of the probe; None for the activations that trainings stored.
    at
        Kinds of places.
    energy
        Matrices whose directions meet what they read, if any.
    """

    text: TextSet | None
    probe: ProbeOptions
    at: tuple[str, ...]
    options: OpenOptions
    steps: Numbers | None
    energy: tuple[Energy, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of places, with that of the inputs of weights if it is wanted."""
        return (*self.at, *([INPUTS] if self.energy else []))


@dataclass(frozen=True)
class FeatureTask:
    """One checkpoint to look into at all places of one kind.

    Attributes
    ----------
    key
        Digest of all that the numbers depend on.
    encoder
        The model's tokenizer; None where the features are stored.
    stored
        The file that holds them.
    previous
        The checkpoint that updates are measured from, if any.
    files
        Every file that is read, with its state when it was planned.
    """

    key: str
    curve: Curve
    run: Run
    checkpoint: Checkpoint
    files: FileStates
    encoder: TextEncoder | None = None
    stored: Path | None = None
    previous: Checkpoint | None = None
    work: float = 1.0


@dataclass(frozen=True)
class Found:
    """What was found in one checkpoint.

    Attributes
    ----------
    numbers
        The numbers of all places.
    kept
        What comparisons are computed from; None where it is in the store already.
    """

    numbers: FeatureFile
    kept: KeptFeatures | None = None

    @property
    def key(self) -> str:
        """Digest of everything that it depends on."""
        return self.numbers.key


class FeaturePlans(CurvePlans[FeatureTask]):
    """The plans of all runs: one per checkpoint and kind of place."""

    def __init__(self, found: Survey, asked: Asked, *about: object) -> None:
        self._given = asked
        self._data = None if asked.text is None else asked.text.digest()
        paths = [run.path for run in found.runs]
        super().__init__(found, asked.steps, VERSION, paths, found.skips, found.notes, *about)

    @property
    def count(self) -> int:
        """Number of plans, if every checkpoint holds what is asked for."""
        return len(self._given.kinds) * sum(map(len, self.asked.values()))

    def _iter_plans(self, runs: Sequence[Run]) -> Iterator[Plan[FeatureTask]]:
        for run in runs:
            if self._given.text is None:
                yield from self._iter_stored(run)
                continue
            curves = [self._curve(run, self._given.text, at) for at in self._given.kinds]
            self.curves += curves
            for checkpoint in self._asked[run.name]:
                yield from self._iter_checkpoint(run, checkpoint, curves)

    def _iter_checkpoint(
        self, run: Run, checkpoint: Checkpoint, curves: Sequence[Curve]
    ) -> Iterator[Plan[FeatureTask]]:
        try:
            model = model_state(checkpoint, run, self._given.options)
        except RankscopeError as error:
            yield Plan(run.name, checkpoint.step, (), (skip_of(error, checkpoint.path),))
            return
        for curve in curves:
            task = FeatureTask(
                key=score_key(curve, model.digest),
                curve=curve,
                run=run,
                checkpoint=checkpoint,
                files=model.files,
                encoder=model.encoder,
            )
            skips: tuple[Skip, ...] = ()
            if curve.settings["at"] == INPUTS and "update" in self._given.energy:
                task, skips = _since_previous(task)
            self.planned.add((series_of(curve), checkpoint.step))
            yield Plan(run.name, checkpoint.step, (task,), skips)

    def _iter_stored(self, run: Run) -> Iterator[Plan[FeatureTask]]:
        curves: dict[str, Curve] = {}
        for checkpoint in self._asked[run.name]:
            for text, path in activation_files(checkpoint).items():
                curve = curves.setdefault(text, self._stored_curve(run, text))
                try:
                    key = digest_of(VERSION, curve.settings, fingerprint(path))
                except RankscopeError as error:
                    yield Plan(run.name, checkpoint.step, (), (skip_of(error, path),))
                    continue
                states = ((str(path), state_of(path)),)
                task = FeatureTask(key, curve, run, checkpoint, states, stored=path)
                self.planned.add((series_of(curve), checkpoint.step))
                yield Plan(run.name, checkpoint.step, (task,))
        if not curves:
            message = (
                "its checkpoints hold no activations that a training stored: give `text`, and "
                "models are run on it"
            )
            yield Plan(run.name, 0, (), (Skip(str(run.path), "", "no-activations", message),))
        self.curves += curves.values()

    def _curve(self, run: Run, text: TextSet, at: str) -> Curve:
        options = self._given.options
        settings = {
            "at": at,
            "data": self._data,
            **vars(self._given.probe),
            "prefix": options.prefix,
            "precision": options.precision,
            "tokenizer": options.tokenizer,
        }
        if at == INPUTS:
            settings["energy"] = list(self._given.energy)
        return _curve(run, text.name, settings)

    def _stored_curve(self, run: Run, text: str) -> Curve:
        settings = {"at": STORED, "features": "last", "kept": self._given.probe.kept}
        return _curve(run, text, settings)


def _curve(run: Run, text: str, settings: dict[str, Any]) -> Curve:
    name = f"{safe_name(text)}-{settings['at']}-{digest_of(VERSION, settings)[:8]}"
    folder = f"{REPRESENTATIONS_FOLDER}/{safe_name(run.name)}/{name}"
    return Curve(run.name, str(run.path.absolute()), text, folder, settings)


def _since_previous(task: FeatureTask) -> tuple[FeatureTask, tuple[Skip, ...]]:
    """The task with the checkpoint before, which its update begins at; or why it has none."""
    earlier = [one for one in task.run if one.step < task.checkpoint.step]
    if not earlier:
        return task, ()
    previous, now = earlier[-1], task.checkpoint
    try:
        apart = difference_of_traces(trace_of(previous.path), trace_of(now.path))
        apart = apart or difference(previous.contents, now.contents)
        files = [*model_files(previous), *task.run.merge_files]
        key = digest_of(task.key, [fingerprint(path) for path in files])
    except RankscopeError as error:
        return task, (skip_of(error, previous.path),)
    if apart:
        message = f"does not continue step {previous.step}: {apart}. It has no update"
        return task, (Skip(str(now.path), "", "break", message),)
    states = tuple((str(path), state_of(path)) for path in files)
    both = dict((*task.files, *states))
    return replace(task, key=key, previous=previous, files=tuple(both.items())), ()


class FeatureFiles:
    """The store: files of numbers, each with a file of kept features."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def path(self, plan: Plan[FeatureTask]) -> Path:
        """File of the one task of a plan."""
        return feature_path(self._out, plan.tasks[0].curve.folder, plan.step)

    def read(self, path: Path) -> list[Found]:
        """The numbers of a file; none where it or its kept features are absent."""
        if not (path.is_file() and kept_path(path).is_file()):
            return []
        try:
            return [Found(read_features(path))]
        except OtherVersionError:
            return []

    def write(self, path: Path, stored: list[Found], new: list[Found]) -> None:
        """Write what was found in one checkpoint, the kept features before the numbers."""
        for found in new:
            if found.kept is not None:
                remove_file(path)  # so that no kept features stand beside numbers of others
                write_kept(kept_path(path), found.kept)
            write_features(path, found.numbers)

    def entries(self, task: FeatureTask, result: Found) -> list[Found]:
        """The result as it is."""
        return [result]

    def failed(self, task: FeatureTask, failure: Failure) -> tuple[list[Found], Skip]:
        """No numbers, and why."""
        return [], skip_of_failure(failure, task.checkpoint.path)

    def fault(self, task: FeatureTask, entry: Found) -> Skip | None:
        """What kept some places from having numbers; None if all have them."""
        without = [row for row in entry.numbers.rows if row["status"] != "ok"]
        if not without:
            return None
        if task.curve.settings["at"] == INPUTS:
            return _fault_of_inputs(task, without)
        first = without[0]
        where = f"the {first['at']} of layer {first['layer']}"
        more = f" and {len(without) - 1} more places" if len(without) > 1 else ""
        message = (
            f"{where}{more} at step {entry.numbers.step}: {WHY[first['status']].format(**first)}"
        )
        return Skip(str(task.checkpoint.path), "", first["status"], message)


def _fault_of_inputs(task: FeatureTask, without: Sequence[Row]) -> Skip | None:
    """What kept some weights from having numbers; a matrix that is zero, as new adapters are, may.

    The input of a weight whose features lack tokens is reported for the first of them.
    """
    faults = [row for row in without if row["status"] != "zero"]
    if not faults:
        return None
    first = faults[0]
    names = {row["name"] for row in faults}
    more = f" and {len(names) - 1} more weights" if len(names) > 1 else ""
    why = WHY_NOT[first["status"]].format(**first)
    message = f"the {first['component']}{more} at step {task.checkpoint.step}: {why}"
    return Skip(str(task.checkpoint.path), first["name"], first["status"], message)


# Why the input of a weight lacks numbers: every status of its rows but ``ok`` and ``zero``.
WHY_NOT = {
    "too-few-tokens": (
        "{tokens} features of {dimensions} dimensions, and the best directions need four times as "
        "many: give more text, or raise `tokens`"
    ),
    "one-block": "all text is one document, so there are no intervals: give more of them",
    "nonfinite": "features or weights are NaN or infinite, so nothing is measured there",
    "no-input": (
        "no module of the network is certain to be this weight's, so what it reads is not known"
    ),
    "unreadable": "{why}",
}

# Why a place lacks numbers: every status of `measure_features` but the good one.
WHY: dict[FeatureStatus, str] = {
    "too-few-tokens": (
        "{tokens} features of {dimensions} dimensions, and ranks need four times as many: give "
        "more text, or raise `tokens`"
    ),
    "one-block": "all text is one document, so there are no intervals: give more of them",
    "nonfinite": "features are NaN or infinite, so nothing is measured there",
    "zero": "all features are zero or the same, so there is no rank",
    "no-convergence": "the eigenvalues were not found, so there is no rank",
}
