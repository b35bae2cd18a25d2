"""What a run logged while training, as records with the same keys whoever wrote them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError

TRAINER_NAMES = {"eval_loss": "validation_loss"}


def log_file(run: Run) -> Path | None:
    """The log that grows while a run trains; None if there is none."""
    path = run.path / "metrics.jsonl"
    return path if path.is_file() else None


def read_training_log(run: Run) -> list[dict[str, Any]]:
    """Records with a step, from ``metrics.jsonl`` or the last checkpoint's trainer_state.json.

    A run without a log has no records. Damaged lines, such as the last one of a run that was
    killed, are ignored.
    """
    path = log_file(run)
    if path is not None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        records = [_parsed(line) for line in lines]
    else:
        records = _trainer_history(run)
    return [record for record in records if type(record.get("step")) is int]


def configured_steps(run: Run) -> int | None:
    """The last step that a run of `rankscope train` is to make; None for those of others."""
    try:
        config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
        return int(config["schedule"]["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def planned_steps(run: Run) -> int | None:
    """The last step that a run is to make, by its settings or its last trainer_state.json.

    None where neither says it.
    """
    steps = configured_steps(run)
    if steps is not None or not run.checkpoints:
        return steps
    try:
        most = read_json(run.checkpoints[-1].path / "trainer_state.json").get("max_steps")
    except RankscopeError:
        return None
    return most if type(most) is int and most > 0 else None


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _trainer_history(run: Run) -> list[dict[str, Any]]:
    try:
        history = read_json(run.checkpoints[-1].path / "trainer_state.json").get("log_history", [])
    except RankscopeError:
        return []
    records = [record for record in history if isinstance(record, dict)]
    return [{TRAINER_NAMES.get(str(k), str(k)): v for k, v in record.items()} for record in records]
