"""The results of evaluations in the results folder: the table, and what it came from."""

from __future__ import annotations

import io
import json
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.checkpoints.contents import Skip
from rankscope.durable import write_file
from rankscope.errors import RankscopeError
from rankscope.evaluation.score_files import PairScores, ScoreFile, read_scores
from rankscope.evaluation.score_keys import Series, score_path
from rankscope.evaluation.scoring import Evaluation
from rankscope.results.columns import (
    EVALUATION_COLUMNS,
    EVALUATION_FILE,
    EVALUATION_RECORD,
    EVALUATION_SKIPS,
)
from rankscope.results.record import read_record, write_with_record
from rankscope.results.results import typed_evaluation

SERIES = tuple(field.name for field in fields(Series))
PACKAGES = ("rankscope", "numpy", "safetensors", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Scored:
    """A series with its files of scores, by step."""

    series: Series
    files: tuple[ScoreFile, ...]

    @property
    def is_pairs(self) -> bool:
        """Whether they are of minimal pairs; else of documents."""
        return isinstance(self.files[0].scores, PairScores)


def write_results(out: Path, evaluation: Evaluation) -> pd.DataFrame:
    """Write the table and the record; unchanged files stay untouched.

    The table holds the series of this evaluation and those that earlier ones left, but for other
    settings of the same run and task. It is sorted by run, task and step.

    Returns
    -------
    The rows of the runs and tasks of this evaluation, at the steps that were asked for.

    Raises
    ------
    RankscopeError
        If this evaluation has no scores at all; what earlier ones wrote stays.
    OSError
        If a file cannot be written.
    """
    if not evaluation.scored:
        write_file(out / EVALUATION_SKIPS, _lines(evaluation.skips))
        raise RankscopeError("no checkpoint could be evaluated")
    found = [
        _with_files(out, series, steps, evaluation) for series, steps in _series(out, evaluation)
    ]
    evaluation.skips += _non_finite(found, evaluation)
    table = typed_evaluation(pd.DataFrame(_rows(found), columns=list(EVALUATION_COLUMNS)))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files = {
        EVALUATION_FILE: buffer.getvalue(),
        "evaluation.csv": table.to_csv(index=False, lineterminator="\n").encode(),
        EVALUATION_SKIPS: _lines(evaluation.skips),
    }
    write_with_record(out / EVALUATION_RECORD, _described(found, evaluation), files)
    return _asked(table, evaluation)


def _lines(skips: Sequence[Skip]) -> bytes:
    return "".join(json.dumps(asdict(skip)) + "\n" for skip in skips).encode()


def _series(out: Path, evaluation: Evaluation) -> list[tuple[Series, list[int]]]:
    """Series of the table with their steps: of earlier evaluations what holds, and its own.

    An earlier step that was asked for now, and has no scores that are true, is left out.
    """
    listed: dict[tuple[str, str], tuple[Series, set[int]]] = {}
    for series, recorded in _recorded(out):
        asked = evaluation.asked[series.run] if series in evaluation.series else ()
        listed[series.run, series.task] = series, set(recorded).difference(asked)
    for series in evaluation.series:
        earlier, others = listed.get((series.run, series.task), (series, set()))
        if scored := set(evaluation.scored.get(series.folder, ())):
            steps = scored | others if series == earlier else scored
            listed[series.run, series.task] = series, steps
    return [(series, sorted(steps)) for _, (series, steps) in sorted(listed.items())]


def _recorded(out: Path) -> list[tuple[Series, list[int]]]:
    """Series that ``evaluation.json`` lists; none where it is damaged."""
    try:
        return [
            (Series(*(known[name] for name in SERIES)), [int(step) for step in known["steps"]])
            for known in read_record(out / EVALUATION_RECORD)["evaluations"]
        ]
    except (KeyError, TypeError, ValueError):
        return []


def _with_files(out: Path, series: Series, steps: Sequence[int], evaluation: Evaluation) -> Scored:
    files = []
    for step in steps:
        path = score_path(out, series.folder, step)
        try:
            files.append(read_scores(path))
        except RankscopeError as error:
            evaluation.skip(error, path)
    return Scored(series, tuple(files))


def _rows(found: Sequence[Scored]) -> list[dict[str, Any]]:
    return [
        {"run": scored.series.run, "step": file.step, "task": scored.series.task, **asdict(measure)}
        for scored in found
        for file in scored.files
        for measure in file.measures
    ]


def _asked(table: pd.DataFrame, evaluation: Evaluation) -> pd.DataFrame:
    """Rows of the runs, tasks and steps of this evaluation."""
    wanted = {
        (series.run, series.task, step)
        for series in evaluation.series
        for step in evaluation.scored.get(series.folder, ())
    }
    keys = zip(table["run"], table["task"], table["step"], strict=True)
    return table[[key in wanted for key in keys]].reset_index(drop=True)


def _non_finite(found: Sequence[Scored], evaluation: Evaluation) -> list[Skip]:
    return [
        Skip(
            str(evaluation.scored[scored.series.folder][file.step]),
            "",
            "nonfinite",
            f"{file.non_finite} {'pairs' if scored.is_pairs else 'documents'} of "
            f"{scored.series.task} have no finite score at step {file.step}, nor have their groups",
        )
        for scored in found
        for file in scored.files
        if file.non_finite and file.step in evaluation.scored.get(scored.series.folder, ())
    ]


def _described(found: Sequence[Scored], evaluation: Evaluation) -> dict[str, Any]:
    """What was evaluated, with what, and how it went, for ``evaluation.json``."""
    return {
        "schema_version": 1,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "evaluations": [_described_series(scored) for scored in found if scored.files],
        "skipped": [asdict(skip) for skip in evaluation.skips],
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _described_series(scored: Scored) -> dict[str, Any]:
    seconds = sum(file.seconds for file in scored.files)
    unit = "pairs" if scored.is_pairs else "tokens"
    count = sum(file.count for file in scored.files)
    return {
        **asdict(scored.series),
        "steps": [file.step for file in scored.files],
        "prefix": sorted({file.prefix for file in scored.files}),
        "seconds": round(seconds, 3),
        f"{unit}_per_second": round(count / seconds, 1) if seconds else None,
        "first": _overall(scored.files[0]),
        "last": _overall(scored.files[-1]),
    }


def _overall(file: ScoreFile) -> dict[str, Any]:
    """Measures of all documents or pairs, and None where one is not finite."""
    return {
        measure.metric: {
            name: value if math.isfinite(value) else None
            for name, value in asdict(measure).items()
            if name not in ("group", "metric")
        }
        for measure in file.measures
        if measure.group == "all"
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
