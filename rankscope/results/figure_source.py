"""`FigureSource`: what the records of a results folder say about every figure drawn from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rankscope.results.columns import (
    ANALYSIS_RECORD,
    EVALUATION_RECORD,
    REPRESENTATIONS_RECORD,
    TRAINING_FILE,
)
from rankscope.results.record import FILES, read_record
from rankscope.results.results import Results
from rankscope.statistics.markup import literal

MOST_NAMED = 3
NAMED_VERSIONS = ("rankscope", "numpy")
DIGITS = 12  # of a digest
RECORDS = (ANALYSIS_RECORD, EVALUATION_RECORD, REPRESENTATIONS_RECORD)


@dataclass(frozen=True)
class FigureSource:
    """What was skipped, which runs ended early, and which tables and versions there are.

    Attributes
    ----------
    skipped
        How many things were skipped, by reason.
    early
        By run, where its checkpoints end and how far it was to go: "step 750 of 1000".
    versions
        Of the packages that wrote the results.
    digests
        The tables of the results by name, each with the beginning of its BLAKE2b digest of 128
        bits.
    """

    skipped: Mapping[str, int]
    early: Mapping[str, str]
    versions: Mapping[str, str]
    digests: Mapping[str, str]

    def remarks(self, runs: Collection[str]) -> Iterator[str]:
        """What a reader of a figure of these runs should know, one line for each matter."""
        ended = [f"{literal(run)} at {self.early[run]}" for run in sorted({*runs} & {*self.early})]
        if ended:
            yield f"ended early: {_first(ended)}"
        if self.skipped:
            reasons = [f"{literal(reason)}: {n}" for reason, n in sorted(self.skipped.items())]
            yield f"skipped by the analysis: {sum(self.skipped.values())} ({_first(reasons)})"

    def identity(self) -> str:
        """One sentence with the tables and versions, the same whenever and wherever it is made."""
        tables = [f"{name} {digest}" for name, digest in sorted(self.digests.items())]
        versions = [f"{name} {version}" for name, version in self.versions.items()]
        drawn = [f"drawn from {', '.join(tables)}"] if tables else []
        computed = [f"computed with {', '.join(versions)}"] if versions else []
        known = ", ".join([*drawn, *computed])
        return f"{known[:1].upper()}{known[1:]}." if known else ""


def source_of(results: Results) -> FigureSource:
    """Read what the records of results say; empty for what they do not hold.

    A run ended early where its settings plan more steps than its last checkpoint has, or where its
    log goes on for longer than the last two checkpoints are apart. Where steps were chosen nothing
    is known about that.
    """
    records = [read_record(results.path / name) for name in RECORDS]
    skips = [entry for record in records for entry in record.get("skipped", ())]
    versions: dict[str, Any] = {}
    for record in reversed(records):
        versions |= record.get("versions", {})
    files = {name: digest for record in records for name, digest in record.get(FILES, {}).items()}
    return FigureSource(
        skipped=Counter(str(skip.get("reason", "")) for skip in skips),
        early=_early(records[0], results.training),
        versions={name: str(versions[name]) for name in NAMED_VERSIONS if name in versions},
        digests={
            name: digest[:DIGITS]
            for name, digest in files.items()
            if digest and (name.endswith(".parquet") or name == TRAINING_FILE)
        },
    )


def _early(record: Mapping[str, Any], training: pd.DataFrame) -> dict[str, str]:
    if record.get("options", {}).get("steps") is not None:
        return {}
    logged = {}
    if {"run", "step"} <= {*training.columns}:
        logged = training.groupby("run")["step"].max().to_dict()
    early = {}
    for run in record.get("runs", ()):
        name, unit = str(run.get("name")), str(run.get("unit", "step"))
        steps = [int(checkpoint["step"]) for checkpoint in run.get("checkpoints", ())]
        if not steps or unit != "step":
            continue
        planned, log_end = run.get("planned"), logged.get(name, -math.inf)
        spacing = steps[-1] - steps[-2] if len(steps) > 1 else math.inf
        if planned is not None and planned > steps[-1]:
            early[name] = f"step {steps[-1]} of {planned}"
        elif log_end - steps[-1] >= spacing:
            early[name] = f"step {steps[-1]}, its log at {int(log_end)}"
    return early


def _first(texts: Collection[str]) -> str:
    shown = [*texts][:MOST_NAMED]
    more = [f"{len(texts) - MOST_NAMED} more"] if len(texts) > MOST_NAMED else []
    return ", ".join([*shown, *more])
