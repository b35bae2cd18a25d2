"""The engine of comparisons: reads kept features, and measures how alike they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from rankscope.durable import remove_file
from rankscope.errors import RankscopeError
from rankscope.evaluation.model_engine import failure_of
from rankscope.pipeline.engine import Failure, Job
from rankscope.representations.probe_features import ProbeFeatures, similarity
from rankscope.representing.collected import Place, Side
from rankscope.representing.comparison_plans import Compared, ComparisonEntry
from rankscope.representing.feature_files import KeptFeatures, Row, kept_path, read_kept
from rankscope.results.representation_tables import LOSS

FILES = 2  # of kept features in memory
PREPARED_BYTES = 256 << 20  # of prepared sides in memory


class ComparisonEngine(AbstractContextManager["ComparisonEngine"]):
    """Compares checkpoints in this process."""

    def __init__(self) -> None:
        self._files: dict[str, KeptFeatures] = {}  # the latest last
        self._prepared: dict[tuple[str, Place], ProbeFeatures] = {}

    def __exit__(self, *_: object) -> None:
        self._files, self._prepared = {}, {}

    def run(
        self, jobs: Iterable[Job[Compared]]
    ) -> Iterator[tuple[Job[Compared], ComparisonEntry | Failure]]:
        """Carry out every comparison, in order."""
        for job in jobs:
            try:
                rows = [self._row(job.task, *pair) for pair in job.task.pairs]
            except RankscopeError as error:
                yield job, failure_of(error, job.task.side.path)
            else:
                yield job, ComparisonEntry(job.task.key, job.task.comparison, tuple(rows))

    def _row(self, task: Compared, place: Place, against: Place) -> Row:
        found = similarity(self._side(task.side, place), self._side(task.against, against))
        losses = () if task.losses is None else zip(LOSS, task.losses, strict=True)
        return {
            "layer": place.layer,
            "at": place.at,
            "against_layer": against.layer,
            "against_at": against.at,
            **dict(losses),
            **found.row(),
        }

    def _side(self, side: Side, place: Place) -> ProbeFeatures:
        key = side.key, place
        if key not in self._prepared:
            kept = self._kept(side)
            features = kept.features[place]
            # An array in float64 and its singular vectors: five times the bytes of the features.
            if 5 * features.nbytes * (len(self._prepared) + 1) > PREPARED_BYTES:
                self._prepared.clear()
            self._prepared[key] = ProbeFeatures.of(features, kept.blocks, bits=kept.bits)
        return self._prepared[key]

    def _kept(self, side: Side) -> KeptFeatures:
        if side.key not in self._files:
            while len(self._files) >= FILES:
                del self._files[next(iter(self._files))]
            self._files[side.key] = _read(side)
        return self._files[side.key]


def _read(side: Side) -> KeptFeatures:
    """The kept features of a checkpoint; damaged ones are removed, so that a call renews them."""
    path = kept_path(side.path)
    try:
        return read_kept(path, side.key)
    except RankscopeError as error:
        remove_file(path)
        message = f"{error.message}, and was removed: the next call computes it again"
        raise RankscopeError(message, path=path, reason="damaged") from error
