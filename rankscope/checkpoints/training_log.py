"""What a run logged while training, as records with the same keys for every trainer."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.links import OUTSIDE, leads_out
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.steps import LIMIT
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import DAMAGE, RankscopeError

LOG = "metrics.jsonl"
TRAINER_NAMES = {"eval_loss": "validation_loss"}


def log_file(run: Run) -> Path | None:
    """The log that grows while a run trains; None if there is none."""
    path = run.path / LOG
    try:
        return path if path.is_file() and not leads_out(path, run.path) else None
    except OSError:
        return None


def iter_log_notes(run: Run) -> Iterator[Skip]:
    """A note if a run has a log that cannot be read."""
    path = run.path / LOG
    if not os.path.lexists(path):
        return
    try:
        if leads_out(path, run.path):
            raise RankscopeError(OUTSIDE, path=path, reason="outside")
        with open_regular(path):
            pass
    except RankscopeError as error:
        message = f"{error.message}; the log of this run is not read"
        yield Skip(str(path), "", "log-unread", message)


def read_training_log(run: Run) -> list[dict[str, Any]]:
    """Records with a step, from ``metrics.jsonl`` or the last checkpoint's trainer_state.json.

    A run without a log has no records. Damaged lines, such as the last one of a run that was
    killed, are ignored.
    """
    path = log_file(run)
    if path is not None:
        records = [_parsed(line) for line in _text(path).splitlines()]
    else:
        records = _trainer_history(run)
    return [one for one in records if type(one.get("step")) is int and 0 <= one["step"] < LIMIT]


def configured_steps(run: Run) -> int | None:
    """The last step that a run of `rankscope train` is to make; None for those of others."""
    try:
        config = tomllib.loads(_text(run.path / "config.toml"))
        return int(config["schedule"]["steps"])
    except (*DAMAGE, OSError):
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


def _text(path: Path) -> str:
    """Content of a file, whatever its bytes; empty if it cannot be opened."""
    try:
        with open_regular(path) as (file, _):
            return file.read().decode("utf-8", errors="replace")
    except RankscopeError:
        return ""


def _parsed(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _trainer_history(run: Run) -> list[dict[str, Any]]:
    if not run.checkpoints:
        return []
    try:
        history = read_json(run.checkpoints[-1].path / "trainer_state.json").get("log_history", [])
    except RankscopeError:
        return []
    listed = history if isinstance(history, list) else []
    records = [record for record in listed if isinstance(record, dict)]
    return [{TRAINER_NAMES.get(str(k), str(k)): v for k, v in record.items()} for record in records]
