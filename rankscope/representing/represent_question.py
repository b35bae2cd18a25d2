"""`RepresentQuestion`: what a call of `represent` asks, and whether a folder has its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.evaluation.model_question import ModelQuestion
from rankscope.pipeline.recall import RecalledCurves
from rankscope.results.columns import (
    EVALUATION_FILE,
    EVALUATION_RECORD,
    REPRESENTATIONS_FOLDER,
    REPRESENTATIONS_RECORD,
)

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.pipeline.choices import Names
    from rankscope.representing.probe_windows import Features


NOTHING_SEEN = "no checkpoint could be measured"


@dataclass(frozen=True, kw_only=True)
class RepresentQuestion(ModelQuestion):
    """The parameters of `rankscope.represent` that say what is measured, as they were given."""

    record = REPRESENTATIONS_RECORD
    stores = (REPRESENTATIONS_FOLDER,)
    # Losses of an evaluation decide which checkpoints are compared at equal loss.
    beside = (EVALUATION_FILE, EVALUATION_RECORD)

    at: Names = "block"
    features: Features = "all"
    tokens: int | None = None
    compare: Names | None = None
    energy: Names = ()
    kept: int = 2048

    def recalled(self, out: Path) -> RecalledRepresentation | None:
        """The last answer in ``out``, if it is that of this question and no file has changed."""
        record = self.recall(out).recorded()
        return None if record is None else RecalledRepresentation.of(record, out)


@dataclass(frozen=True)
class RecalledRepresentation(RecalledCurves):
    """An earlier answer that the states of all files confirm."""

    @property
    def measured(self) -> int:
        """As of `rankscope.representing.represented.Representation`."""
        return len({(run, step) for run, *_, step in self.planned})

    def _stored(self) -> tuple[pd.DataFrame, Iterable[tuple[Any, ...]]]:
        from rankscope.representing.represented import series_in
        from rankscope.results.results import open_results

        table = open_results(self.out).representations
        return table, ((*series, step) for series, step in series_in(table))
