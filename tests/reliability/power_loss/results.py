"""Calls that fill a results folder and lose their power: what is there then."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankscope.analysis.analyze import analyze
from rankscope.durable import is_temporary
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.evaluation.score_files import read_scores
from rankscope.results.results import open_results
from rankscope.results.spectra_store import read_entries
from rankscope.results.subspace_store import read_comparisons
from tests.reliability.power_loss.disk import Counts
from tests.reliability.power_loss.promises import CrashState, marked
from tests.reliability.power_loss.recording import Recording, put, recording, tree_of
from tests.reliability.power_loss.sample import Sample

Call = Callable[[Path], object]
RECORDS = {"analysis.json": "metrics.parquet", "evaluation.json": "evaluation.parquet"}
STORES: Mapping[str, Callable[[Path], object]] = {
    "spectra": read_entries,
    "subspaces": read_comparisons,
    "scores": read_scores,
}


@dataclass(frozen=True)
class Begun:
    """A call begins: what it is."""

    call: str


@dataclass
class Calls:
    """Calls that were made one after another, and what each left in the results folder."""

    calls: Mapping[str, Call]
    out: Path
    recording: Recording
    left: Mapping[str, Mapping[str, bytes | None]]


def analyses(run: Path) -> dict[str, Call]:
    """Two analyses that replace each other's tables, and the first one again."""

    def everything(out: Path) -> object:
        return analyze(run, out=out, components="weight,update", subspaces=2, jobs=1)

    def little(out: Path) -> object:
        return analyze(run, out=out, components="weight", roles="q", jobs=1)

    return {"everything": everything, "a little": little, "everything again": everything}


def recorded_calls(calls: Mapping[str, Call], out: Path) -> Calls:
    """Make the calls and record them."""
    left = {}
    with recording(out.parent) as found, marked(found):
        for name, call in calls.items():
            found.mark(Begun(name))
            call(out)
            left[name] = tree_of(out)
    return Calls(calls, out, found, left)


def violations(calls: Calls, sample: Sample, counts: Counts | None = None) -> Iterator[str]:
    """Say what is wrong after a loss of power at any time."""
    for number, state in sample.chosen(calls.recording, counts):
        shutil.rmtree(calls.out.parent, ignore_errors=True)
        put(state.tree, calls.out.parent)
        found = [f"{path} is lost" for path in state.broken(state.tree)]
        found += [*_stores(calls.out), *_records(calls.out)]
        if sample.resumed and number % sample.resumed == 0:
            found += _repeated(calls, state)
        at = calls.recording.operations[state.position - 1] if state.position else None
        yield from (f"after {state.position} operations, the last {at}: {one}" for one in found)


def _stores(out: Path) -> Iterator[str]:
    """Every file of a store is whole."""
    for name, read in STORES.items():
        for path in (out / name).rglob("*.safetensors"):
            if not is_temporary(path.name):
                try:
                    read(path)
                except RankscopeError as error:
                    yield str(error)


def _records(out: Path) -> Iterator[str]:
    """A record is there only with the tables of its call, and nobody takes others for whole."""
    for name, table in RECORDS.items():
        files = json.loads((out / name).read_bytes())["files"] if (out / name).is_file() else None
        for file, digest in (files or {}).items():
            if _digest(out / file) != digest:
                yield f"{name} is of another call than {file}"
        if (out / table).is_file() and files is None and not _is_said(out):
            yield f"{table} has no {name}, and nothing says so"


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _is_said(out: Path) -> bool:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        open_results(out)
    return any(issubclass(one.category, RankscopeWarning) for one in heard)


def _repeated(calls: Calls, state: CrashState) -> Iterator[str]:
    """The call that was under way, repeated, leaves what it would have left."""
    begun = [said.call for said in state.said if isinstance(said, Begun)]
    name = begun[-1] if begun else next(iter(calls.calls))
    calls.calls[name](calls.out)
    now = tree_of(calls.out)
    for path, content in calls.left[name].items():
        # A record says when it was written, and older files of a store may be gone.
        if path not in RECORDS and "/" not in path and content != now.get(path):
            yield f"{name}, repeated, writes another {path}"
