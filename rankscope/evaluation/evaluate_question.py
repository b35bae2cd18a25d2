"""`EvaluateQuestion`: what a call of `evaluate` asks, and whether a folder has its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.evaluation.model_question import ModelQuestion
from rankscope.pipeline.recall import RecalledCurves
from rankscope.results.columns import EVALUATION_RECORD, SCORES_FOLDER

if TYPE_CHECKING:
    import pandas as pd

NOTHING_EVALUATED = "no checkpoint could be evaluated"


@dataclass(frozen=True, kw_only=True)
class EvaluateQuestion(ModelQuestion):
    """The parameters of `rankscope.evaluate` that say what is measured, as they were given."""

    record = EVALUATION_RECORD
    stores = (SCORES_FOLDER,)

    blimp: str | Path | None = None
    held_out: bool = False
    agreement: bool = False
    stride: int | None = None
    document_perplexity: bool = True
    max_documents: int | None = None
    pairs: int | None = None
    leading_space: bool = False

    def recalled(self, out: Path) -> RecalledEvaluation | None:
        """The last answer in ``out``, if it is that of this question and no file has changed."""
        record = self.recall(out).recorded()
        return None if record is None else RecalledEvaluation.of(record, out)

    def _read(self) -> list[str | Path]:
        from rankscope.evaluation.text_sets import BLIMP, named_path

        read = super()._read()
        if self.blimp is not None:
            read.append(named_path(str(self.blimp), otherwise=BLIMP)[1])
        return read


@dataclass(frozen=True)
class RecalledEvaluation(RecalledCurves):
    """An earlier evaluation that the states of all files confirm."""

    @property
    def measured(self) -> int:
        """As of `rankscope.evaluation.evaluation_folder.Evaluation`."""
        return len(self.planned)

    def _stored(self) -> tuple[pd.DataFrame, Iterable[tuple[Any, ...]]]:
        from rankscope.results.results import open_results

        table = open_results(self.out).evaluation
        return table, zip(table["run"], table["task"], table["step"], strict=True)
