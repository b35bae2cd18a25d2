"""What a call of `evaluate` scored, and how it is kept: the table, and the record of its origin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.contents import Skip
from rankscope.durable import write_file
from rankscope.errors import DAMAGE, RankscopeError
from rankscope.evaluation.score_files import PairScores, ScoreFile, read_scores
from rankscope.pipeline.curves import Curve, FoundCurves, curve_path, recorded_curve
from rankscope.pipeline.execution import skip_of
from rankscope.results.columns import (
    EVALUATION_COLUMNS,
    EVALUATION_CSV,
    EVALUATION_FILE,
    EVALUATION_RECORD,
    EVALUATION_SKIPS,
)
from rankscope.results.csv_tables import frame_as_csv
from rankscope.results.record import json_lines, provenance, read_record, write_with_record

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("rankscope", "numpy", "safetensors", "tokenizers", "torch", "transformers")


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


def write_results(out: Path, evaluation: Evaluation) -> Evaluation:
    """Write the table and the record; unchanged files stay untouched.

    The table holds the curves of this evaluation and of earlier ones, except those of the same run
    and task with other settings. It is sorted by run, task and step. Where nothing was scored, only
    the reasons are written, and what earlier evaluations wrote stays.

    Returns
    -------
    The evaluation with further skips: damaged scores of earlier evaluations.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    if not evaluation.measured:
        write_file(out / EVALUATION_SKIPS, json_lines(map(vars, evaluation.skips)))
        return evaluation
    from rankscope.results.parquet_tables import frame_as_parquet

    listed, damaged = _with_earlier(out, evaluation)
    skips = tuple(dict.fromkeys((*evaluation.skips, *damaged)))
    evaluation = replace(evaluation, skips=skips)
    table = table_of_scores(listed)
    files = {
        EVALUATION_FILE: frame_as_parquet(table),
        EVALUATION_CSV: frame_as_csv(table),
        EVALUATION_SKIPS: json_lines(map(vars, skips)),
    }
    write_with_record(out / EVALUATION_RECORD, _described(listed, evaluation), files)
    return evaluation


def _with_earlier(out: Path, evaluation: Evaluation) -> tuple[list[Scored], list[Skip]]:
    """Curves of the table: this evaluation's, and those of earlier ones that still hold.

    An earlier step that is requested now but has no valid scores is left out.
    """
    damaged: list[Skip] = []
    curves: dict[tuple[str, str], Scored] = {}
    own = {(scored.curve.run, scored.curve.task): scored for scored in evaluation.scored}
    for curve, steps in _recorded(out):
        place = curve.run, curve.task
        if place in own and own[place].curve != curve:
            continue
        asked = evaluation.asked[curve.run] if curve in evaluation.curves else ()
        files = []
        for step in sorted(set(steps).difference(asked)):
            path = curve_path(out, curve.folder, step)
            try:
                files.append(read_scores(path))
            except RankscopeError as error:
                advice = "delete it, or evaluate its task again"
                damaged.append(replace(skip_of(error, path), message=f"{error.message}: {advice}"))
        curves[place] = Scored(curve, tuple(files))
    for place, scored in own.items():
        earlier = curves[place].files if place in curves else ()
        files = sorted((*scored.files, *earlier), key=lambda file: file.step)
        curves[place] = Scored(scored.curve, tuple(files))
    return [curves[place] for place in sorted(curves) if curves[place].files], damaged


def _recorded(out: Path) -> list[tuple[Curve, list[int]]]:
    """Curves that ``evaluation.json`` lists; none where it is damaged."""
    try:
        return [
            (recorded_curve(known), [int(step) for step in known["steps"]])
            for known in read_record(out / EVALUATION_RECORD)["evaluations"]
        ]
    except (RankscopeError, *DAMAGE):
        return []


def _described(listed: Sequence[Scored], evaluation: Evaluation) -> dict[str, Any]:
    """What was evaluated, with which settings and versions, and the main results."""
    return {
        "schema_version": 1,
        **provenance(PACKAGES),
        "key": evaluation.key,
        "evaluations": [_described_curve(scored) for scored in listed],
        "skipped": [vars(skip) for skip in evaluation.skips],
        "notes": [vars(note) for note in evaluation.notes],
    }


def _described_curve(scored: Scored) -> dict[str, Any]:
    seconds = sum(file.seconds for file in scored.files)
    unit = "pairs" if scored.is_pairs else "tokens"
    count = sum(file.count for file in scored.files)
    return {
        **asdict(scored.curve),
        "steps": [file.step for file in scored.files],
        "prefix": sorted({file.prefix for file in scored.files}),
        "seconds": round(seconds, 3),
        f"{unit}_per_second": round(count / seconds, 1) if seconds else None,
        "first": _overall(scored.files[0]),
        "last": _overall(scored.files[-1]),
    }


def _overall(file: ScoreFile) -> dict[str, Any]:
    """Measures of all documents or pairs together; None where one is not finite."""
    return {
        measure.metric: {
            name: value if math.isfinite(value) else None
            for name, value in asdict(measure).items()
            if name not in ("group", "metric")
        }
        for measure in file.measures
        if measure.group == "all"
    }
