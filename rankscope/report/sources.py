"""What was read, what was not and why, as the records of the calls say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.results.columns import (
    ANALYSIS_RECORD,
    EVALUATION_RECORD,
    REPRESENTATIONS_RECORD,
)
from rankscope.results.record import read_record

MOST_LINES = 200


@dataclass(frozen=True)
class ReadRun:
    """A run as it was found."""

    name: str
    path: str
    steps: str
    layouts: str
    merges: int


@dataclass(frozen=True)
class Account:
    """What the page says about its sources.

    Attributes
    ----------
    runs
        One entry per run.
    skipped, notes
        Lines (where, reason, message), at most `MOST_LINES` of each.
    more_skipped
        How many skips are not among them.
    status
        Number of rows by status.
    written, command
        When and by which command the results were written.
    versions
        Of the packages that wrote them.
    """

    runs: list[ReadRun]
    skipped: list[tuple[str, str, str]]
    more_skipped: int
    notes: list[tuple[str, str, str]]
    status: Mapping[str, int]
    written: str
    command: str
    versions: Mapping[str, str]


def account(folder: Path) -> Account:
    """The account of a results folder; parts that no record has are empty."""
    record = read_record(folder / ANALYSIS_RECORD)
    others = [read_record(folder / name) for name in (EVALUATION_RECORD, REPRESENTATIONS_RECORD)]
    about = next(filter(None, (record, *others)), {})
    skipped, notes = (
        _lines([line for one in (record, *others) for line in one.get(name, ())])
        for name in ("skipped", "notes")
    )
    return Account(
        runs=[_run(run) for run in record.get("runs", ())],
        skipped=skipped[:MOST_LINES],
        more_skipped=max(0, len(skipped) - MOST_LINES),
        notes=notes[:MOST_LINES],
        status=record.get("status", {}),
        written=str(about.get("written", "")),
        command=" ".join([Path(word).name if not place else word for place, word in
                          enumerate(map(str, about.get("command", ())))]),
        versions={str(k): str(v) for k, v in about.get("versions", {}).items()},
    )  # fmt: skip


def _lines(entries: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (
            " ".join(filter(None, (str(one.get("path", "")), str(one.get("tensor") or "")))),
            str(one.get("reason", "")),
            str(one.get("message", "")),
        )
        for one in entries
    ]


def _run(run: Mapping[str, Any]) -> ReadRun:
    checkpoints = run.get("checkpoints", ())
    steps = [checkpoint["step"] for checkpoint in checkpoints]
    unit = str(run.get("unit", "step"))
    span = f"{len(steps)} checkpoints, {unit} {steps[0]} to {steps[-1]}" if len(steps) > 1 else (
        f"{unit} {steps[0]}" if steps else f"no {unit}"
    )  # fmt: skip
    layouts = dict.fromkeys(str(checkpoint["layout"]) for checkpoint in checkpoints)
    return ReadRun(
        str(run.get("name", "")),
        str(run.get("path", "")),
        span,
        ", ".join(layouts),
        len(run.get("merges", ())),
    )
