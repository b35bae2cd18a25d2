"""The store of what was found in checkpoints, and why some places and weights lack numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankscope.checkpoints.contents import Skip
from rankscope.durable import remove_file
from rankscope.pipeline.curves import CurveStore
from rankscope.representations.feature_metrics import FeatureStatus
from rankscope.representing.feature_files import (
    Row,
    kept_path,
    read_features,
    write_features,
    write_kept,
)
from rankscope.representing.feature_tasks import INPUTS, FeatureTask, FoundFeatures
from rankscope.results.vectors import OtherVersionError


class FeatureFiles(CurveStore[FeatureTask, FoundFeatures]):
    """The store: files of numbers, each with a file of kept features."""

    def read(self, path: Path) -> list[FoundFeatures]:
        """The numbers of a file; none where it or its kept features are absent."""
        if not (path.is_file() and kept_path(path).is_file()):
            return []
        try:
            return [FoundFeatures(read_features(path))]
        except OtherVersionError:
            return []

    def write(self, path: Path, stored: list[FoundFeatures], new: list[FoundFeatures]) -> None:
        """Write what was found in one checkpoint, the kept features before the numbers."""
        for found in new:
            if found.kept is not None:
                remove_file(path)  # so that no kept features stand beside numbers of others
                write_kept(kept_path(path), found.kept)
            write_features(path, found.numbers)

    def fault(self, task: FeatureTask, entry: FoundFeatures) -> Skip | None:
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


ONE_BLOCK = "all text is one document, so there are no intervals: give more documents"

# Why the input of a weight lacks numbers: every status of its rows but ``ok`` and ``zero``.
WHY_NOT = {
    "too-few-tokens": (
        "{tokens} features of {dimensions} dimensions, and the best directions need four times as "
        "many: give more text, or raise `tokens`"
    ),
    "one-block": ONE_BLOCK,
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
    "one-block": ONE_BLOCK,
    "nonfinite": "features are NaN or infinite, so nothing is measured there",
    "zero": "all features are zero or the same, so there is no rank",
    "no-convergence": "the eigenvalues were not found, so there is no rank",
}
