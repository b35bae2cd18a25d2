"""Which features are requested, where their numbers are kept, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import states_of_files
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.survey import Survey
from rankscope.durable import safe_name
from rankscope.errors import RankscopeError
from rankscope.evaluation.score_plans import digest_of_values, model_state, score_key
from rankscope.evaluation.text_sets import TextSet
from rankscope.pipeline.curves import Curve, CurvePlans
from rankscope.pipeline.execution import Plan, skip_of
from rankscope.representing.feature_files import VERSION
from rankscope.representing.feature_tasks import (
    INPUTS,
    STORED,
    FeatureRequest,
    FeatureTask,
    series_of,
)
from rankscope.representing.stored_activations import activation_files
from rankscope.representing.weight_histories import with_history
from rankscope.results.columns import REPRESENTATIONS_FOLDER
from rankscope.results.run_folders import run_folder_name


class FeaturePlans(CurvePlans[FeatureTask]):
    """The plans of all runs: one per checkpoint and kind of place."""

    def __init__(self, found: Survey, asked: FeatureRequest) -> None:
        self._given = asked
        self._data = None if asked.text is None else asked.text.digest()
        paths = [run.path for run in found.runs]
        super().__init__(found, asked.steps, VERSION, paths, found.skips, found.notes)

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
        self.folders |= {str(run.path), *(str(Path(path).parent) for path, _ in model.files)}
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
            if curve.settings["at"] == INPUTS:
                task, skips = with_history(task, self._given.energy)
                if self._given.energy == ("update",) and task.previous is None:
                    yield Plan(run.name, checkpoint.step, (), skips)
                    continue
            self.planned.add((*series_of(curve), checkpoint.step))
            yield Plan(run.name, checkpoint.step, (task,), skips)

    def _iter_stored(self, run: Run) -> Iterator[Plan[FeatureTask]]:
        curves: dict[str, Curve] = {}
        for checkpoint in self._asked[run.name]:
            for text, path in activation_files(checkpoint).items():
                curve = curves.setdefault(text, self._stored_curve(run, text))
                try:
                    key = digest_of_values(VERSION, curve.settings, fingerprint(path))
                except RankscopeError as error:
                    yield Plan(run.name, checkpoint.step, (), (skip_of(error, path),))
                    continue
                states = states_of_files([path])
                self.folders.add(str(path.parent))
                task = FeatureTask(key, curve, run, checkpoint, states, stored=path)
                self.planned.add((*series_of(curve), checkpoint.step))
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
    name = f"{safe_name(text)}-{settings['at']}-{digest_of_values(VERSION, settings)[:8]}"
    folder = f"{REPRESENTATIONS_FOLDER}/{run_folder_name(run.name)}/{name}"
    return Curve(run.name, str(run.path.absolute()), text, folder, settings)
