"""The results of evaluations in the results folder: the table, and what it came from."""

from __future__ import annotations

import io
import json
import math
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.atomic import write_atomically
from rankscope.checkpoints.contents import Skip
from rankscope.errors import RankscopeError
from rankscope.evaluation.execute import Evaluation
from rankscope.evaluation.plan import Series, score_path
from rankscope.evaluation.scores import ScoreFile, read_scores
from rankscope.evaluation.table import COLUMNS, EVALUATION_FILE, typed

RECORD = "evaluation.json"
PACKAGES = ("rankscope", "numpy", "safetensors", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Scored:
    """A series with all its files of scores, by step."""

    series: Series
    files: tuple[ScoreFile, ...]


def write_results(out: Path, evaluation: Evaluation) -> pd.DataFrame:
    """Write the table and the record; unchanged files stay untouched.

    The table holds the series of this evaluation and those that earlier ones left, but for other
    settings of the same run and task.

    Returns
    -------
    The rows of the runs and tasks of this evaluation, at the steps that were asked for.

    Raises
    ------
    RankscopeError
        If nothing at all was scored.
    OSError
        If a file cannot be written.
    """
    found = [_with_files(out, series, evaluation) for series in _series(out, evaluation)]
    if not any(scored.files for scored in found):
        raise RankscopeError("no checkpoint could be evaluated")
    evaluation.skips += _non_finite(out, found, evaluation)
    table = typed(pd.DataFrame(_rows(found), columns=list(COLUMNS)))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files = {
        EVALUATION_FILE: buffer.getvalue(),
        "evaluation.csv": table.to_csv(index=False, lineterminator="\n").encode(),
        "evaluation-skipped.jsonl": "".join(
            json.dumps(asdict(skip)) + "\n" for skip in evaluation.skips
        ).encode(),
        RECORD: json.dumps(_described(found, evaluation), indent=2, allow_nan=False).encode(),
    }
    for name, content in files.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != content:  # so that make sees what is new
            write_atomically(path, content)
    return _asked(table, evaluation)


def read_record(out: Path) -> dict[str, Any]:
    """Content of ``evaluation.json``; empty where there is none or it is damaged."""
    try:
        record = json.loads((out / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _series(out: Path, evaluation: Evaluation) -> Iterator[Series]:
    """Series of earlier evaluations that this one leaves as they are, and its own."""
    replaced = {(series.run, series.task) for series in evaluation.series}
    for known in read_record(out).get("evaluations", []):
        series = Series(*(known[name] for name in ("run", "path", "task", "folder", "settings")))
        if (series.run, series.task) not in replaced:
            yield series
    yield from evaluation.series


def _with_files(out: Path, series: Series, evaluation: Evaluation) -> Scored:
    files = []
    for path in sorted((out / series.folder).glob("step-*.safetensors")):
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
        for step in evaluation.steps[series.run]
    }
    keys = zip(table["run"], table["task"], table["step"], strict=True)
    return table[[key in wanted for key in keys]].reset_index(drop=True)


def _non_finite(out: Path, found: Sequence[Scored], evaluation: Evaluation) -> list[Skip]:
    own = {series.folder for series in evaluation.series}
    return [
        Skip(
            str(score_path(out, scored.series.folder, file.step)),
            "",
            "nonfinite",
            f"{file.non_finite} of {scored.series.task} are not finite at step {file.step} of "
            f"{scored.series.run}, and so are the numbers of their groups",
        )
        for scored in found
        if scored.series.folder in own
        for file in scored.files
        if file.non_finite and file.step in evaluation.steps[scored.series.run]
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
    unit = "pairs" if scored.series.settings["kind"] == "pairs" else "tokens"
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
