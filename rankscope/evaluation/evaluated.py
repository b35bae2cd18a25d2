"""The result of `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rankscope.evaluation.score_files import PairScores, ScoreFile
from rankscope.pipeline.curves import Curve, FoundCurves
from rankscope.results.columns import EVALUATION_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scored:
    """A curve with its files of scores, by step."""

    curve: Curve
    files: tuple[ScoreFile, ...]

    @property
    def is_pairs(self) -> bool:
        """Whether the scores are of minimal pairs, not of documents."""
        return isinstance(self.files[0].scores, PairScores)


@dataclass(frozen=True)
class Evaluation(FoundCurves):
    """What one call scored: one curve per run and task.

    Attributes
    ----------
    scored
        The curves of this call with their valid files; those without any are left out.
    """

    scored: tuple[Scored, ...]

    @property
    def measured(self) -> int:
        """Number of scored checkpoints and tasks; where there is none, no results are written."""
        return sum(len(scored.files) for scored in self.scored)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of this call."""
        return table_of_scores(self.scored)


def table_of_scores(listed: Iterable[Scored]) -> pd.DataFrame:
    """Every number of these scores, one row each."""
    import pandas as pd

    from rankscope.results.results import typed_evaluation

    rows = [
        {"run": scored.curve.run, "step": file.step, "task": scored.curve.task, **asdict(measure)}
        for scored in listed
        for file in scored.files
        for measure in file.measures
    ]
    return typed_evaluation(pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS)))
