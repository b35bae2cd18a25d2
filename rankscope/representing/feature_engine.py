"""The engine: opens one model after another, runs the probe, and measures what is at each place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.evaluation.model_engine import OneModel, failure_of
from rankscope.pipeline.engine import Failure, Job
from rankscope.pipeline.execution import Meter
from rankscope.representations.feature_metrics import measure_features
from rankscope.representations.feature_sums import BLOCKS
from rankscope.representing.collected import NO_PLACE, At, Collected, Place
from rankscope.representing.feature_files import FeatureFile, KeptFeatures, Row
from rankscope.representing.feature_tasks import INPUTS, FeatureRequest, FeatureTask, FoundFeatures
from rankscope.representing.probe_windows import Probe, make_probe, probe_texts
from rankscope.representing.stored_activations import (
    kept_samples,
    sample_count,
    stored_features,
)
from rankscope.representing.weight_histories import moment_of
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.spectra.formats import FORMATS


class FeatureEngine(AbstractContextManager["FeatureEngine"]):
    """Looks into checkpoints in this process; a model is opened once for successive tasks.

    Parameters
    ----------
    asked
        What every checkpoint is asked for.
    meter
        Shows the progress within a checkpoint.
    """

    def __init__(self, asked: FeatureRequest, meter: Meter) -> None:
        self._asked, self._meter = asked, meter
        self._models = OneModel(asked.options)
        self._probes: dict[tuple[str, int, int], Probe] = {}

    def __exit__(self, *_: object) -> None:
        self._models.close()

    def run(
        self, jobs: Iterable[Job[FeatureTask]]
    ) -> Iterator[tuple[Job[FeatureTask], FoundFeatures | Failure]]:
        """Look into every job's checkpoint, in order."""
        for job in jobs:
            try:
                found = self._stored(job.task) if job.task.stored else self._run(job.task)
            except WrongSettingError:  # as of a GPU that is not there: the same for all
                raise
            except RankscopeError as error:
                if self._is_of_text(error):
                    raise
                yield job, failure_of(error, job.task.checkpoint.path)
            else:
                yield job, found

    def _is_of_text(self, error: RankscopeError) -> bool:
        """Whether the text cannot be read, which all checkpoints would read."""
        text = self._asked.text
        return text is not None and error.path in {str(path) for path in text.paths}

    def _run(self, task: FeatureTask) -> FoundFeatures | Failure:
        model = self._models.opened(task.checkpoint, task.run, cast(TextEncoder, task.encoder))
        if isinstance(model, Failure):
            return model
        is_of_inputs = task.curve.settings["at"] == INPUTS
        return self._inputs(task, model) if is_of_inputs else self._places(task, model)

    def _places(self, task: FeatureTask, model: TextModel) -> FoundFeatures:
        from rankscope.representing.network_features import collect, network_of, widths
        from rankscope.representing.places import taps_of

        start = time.monotonic()
        at = cast(At, task.curve.settings["at"])
        parameters = task.checkpoint.read().parameters.values() if at != "block" else ()
        network = network_of(model)
        taps = taps_of(network.module, at, parameters)
        probe, window = self._probe(model, max(widths(network, taps, model.device).values()))
        bits = FORMATS[self._asked.options.precision].significant_bits
        rows, features = [], {}
        for one in collect(model, taps, probe, progress=self._progress(task)):
            rows.append(_row(one, bits))
            features[one.place] = one.kept
        return _found(task, probe, rows, start=start, window=window, bits=bits, features=features)

    def _inputs(self, task: FeatureTask, model: TextModel) -> FoundFeatures:
        from rankscope.representing.input_readings import energies
        from rankscope.representing.network_features import network_of
        from rankscope.representing.weight_inputs import readers_of

        start, options = time.monotonic(), self._asked.options
        readers = readers_of(
            network_of(model),
            moment_of(task),
            self._asked.energy,
            device=model.device,
            precision=options.precision,
        )
        if not readers:
            wanted = " or ".join(self._asked.energy)
            raise RankscopeError(f"holds no {wanted} that reads features", reason=NO_PLACE)
        probe, window = self._probe(model, max(one.shape[1] for one in readers))
        rows = list(energies(model, readers, probe, progress=self._progress(task)))
        bits = FORMATS[options.precision].significant_bits
        return _found(task, probe, rows, start=start, window=window, bits=bits, features={})

    def _progress(self, task: FeatureTask) -> Callable[[float], None]:
        return lambda share: self._meter.show(share, task.run.name, task.checkpoint.step)

    def _probe(self, model: TextModel, dimensions: int) -> tuple[Probe, int]:
        """The probe of a model, and the tokens that it is given at once; the last is kept."""
        options, text = self._asked.probe, self._asked.text
        tokens, longest = options.wanted(dimensions), options.longest(model.context)
        key = model.encoder.digest, tokens, longest
        if key not in self._probes:
            if text is None:
                raise ValueError("there is no text to make a probe of")
            texts = probe_texts(text.iter_documents(None), options.reach(tokens, longest), longest)
            self._probes = {key: make_probe(model.encoder, texts, options, tokens, longest)}
        return self._probes[key], longest

    def _stored(self, task: FeatureTask) -> FoundFeatures:
        start = time.monotonic()
        path = task.stored
        if path is None:
            raise ValueError("nothing is stored")
        kept = self._asked.probe.kept
        rows, features, bits = [], {}, FORMATS["float64"].significant_bits
        for one, its_bits in stored_features(path, kept):
            rows.append(_row(one, its_bits))
            features[one.place] = one.kept
            bits = min(bits, its_bits)
        samples = sample_count(path)
        blocks = kept_samples(samples, kept) % BLOCKS
        numbers = FeatureFile(
            key=task.key,
            step=task.checkpoint.step,
            probe=f"{task.curve.task} {samples}",
            window=0,
            documents=samples,
            seconds=time.monotonic() - start,
            rows=tuple(rows),
            bits=bits,
        )
        return FoundFeatures(
            numbers, KeptFeatures(task.key, bits, blocks.astype(np.int64), features)
        )


def _found(
    task: FeatureTask,
    probe: Probe,
    rows: Sequence[Row],
    *,
    start: float,
    window: int,
    bits: int,
    features: Mapping[Place, NDArray[np.float32]],
) -> FoundFeatures:
    """What a probe found in one checkpoint."""
    numbers = FeatureFile(
        key=task.key,
        step=task.checkpoint.step,
        probe=probe.digest,
        window=window,
        documents=probe.documents,
        seconds=time.monotonic() - start,
        rows=tuple(rows),
        bits=bits,
    )
    blocks = probe.kept_blocks if features else np.empty(0, np.int64)
    return FoundFeatures(numbers, KeptFeatures(task.key, bits, blocks, features))


def _row(one: Collected, bits: int) -> Row:
    """The place and its numbers."""
    found = measure_features(one.sums, bits=bits)
    return {"layer": one.place.layer, "at": one.place.at, **found.row()}
