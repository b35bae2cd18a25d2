"""What is read from a mutant, as a digest of every number, by the same doors that a user takes."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rankscope as rs
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.preview import preview
from rankscope.analysis.request import Selection
from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.continuity import trace_of
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.merges import read_merges
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.survey import fault_of
from rankscope.checkpoints.tensors import Tensor
from rankscope.checkpoints.training_log import planned_steps, read_training_log
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.watching.readiness import has_ended
from tests.analysis.series import Inline


@dataclass
class Seen:
    """What a reader saw: numbers under names, and what it was told."""

    numbers: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def attempt(self, name: str, read: Callable[[], Any]) -> None:
        """Read something whose failure costs only itself."""
        try:
            self.numbers[name] = digest(read())
        except RankscopeError as error:
            self.told.append(str(error))


Reader = Callable[[Path], Seen]


def digest(value: Any) -> str:
    """A short text that differs where values differ."""
    if isinstance(value, np.ndarray):
        value = (value.dtype.str, value.shape, value.tobytes())
    return hashlib.blake2b(repr(value).encode("utf-8", "replace"), digest_size=8).hexdigest()


def read_checkpoint(folder: Path) -> Seen:
    """One checkpoint, and every tensor of its parameters."""
    seen = Seen()
    for path in _below(folder):
        layout = layout_of(path)
        if layout is None:
            raise RankscopeError(fault_of(path) or "is no checkpoint", path=path)
        LAYOUTS[layout].step(path)
        _contents(seen, Checkpoint(path, 1, "folder", layout).read(), "")
    return seen


def read_run(folder: Path) -> Seen:
    """A run: its steps, logs, merges, and all that its checkpoints hold."""
    return _read_runs(folder, _log, _merges, _checkpoints)


def read_log(folder: Path) -> Seen:
    """The steps and the log of a run."""
    return _read_runs(folder, _log)


def read_merge_files(folder: Path) -> Seen:
    """The steps and the merges of a run."""
    return _read_runs(folder, _merges)


def _read_runs(folder: Path, *readers: Callable[[Seen, Run], None]) -> Seen:
    seen = Seen()
    found = survey([folder])
    said(seen, found.skips, found.notes)
    for run in found.runs:
        seen.numbers["steps"] = digest(run.steps)
        for read in readers:
            read(seen, run)
    return seen


def _log(seen: Seen, run: Run) -> None:
    seen.attempt("log", lambda: (read_training_log(run), planned_steps(run)))
    seen.attempt("end", lambda: has_ended(run))


def _merges(seen: Seen, run: Run) -> None:
    merges = read_merges(run.merge_files)
    said(seen, merges.skips)
    for merge in merges.read:
        for module, adapter in merge.adapters.items():
            _tensors(seen, f"{merge.step} {module} {adapter.scale}", adapter.tensors)


def _checkpoints(seen: Seen, run: Run) -> None:
    for checkpoint in run:
        trace_of(checkpoint.path)
        _checkpoint(seen, checkpoint)


def _checkpoint(seen: Seen, checkpoint: Checkpoint) -> None:
    try:
        contents = checkpoint.read()
    except RankscopeError as error:
        seen.told.append(str(error))
    else:
        _contents(seen, contents, f"{checkpoint.step} ")


def _contents(seen: Seen, contents: Contents, prefix: str) -> None:
    said(seen, contents.skips, contents.notes)
    seen.numbers[f"{prefix}heads"] = digest((contents.family, contents.heads, contents.restarts))
    for of, parameters in (("", contents.parameters), ("∇", contents.gradients)):
        for name, one in parameters.items():
            about = one.role, one.layer, one.expert, one.shape, getattr(one.adapter, "scale", 0)
            seen.numbers[f"{prefix}{of}{name}"] = digest(about)
            _tensors(seen, f"{prefix}{of}{name}", _stored(one))


def _stored(parameter: Parameter) -> Iterator[Tensor]:
    if parameter.tensor is not None:
        yield parameter.tensor
    if parameter.adapter is not None:
        yield from parameter.adapter.tensors


def _tensors(seen: Seen, name: str, tensors: Iterable[Tensor]) -> None:
    for number, tensor in enumerate(tensors):
        seen.attempt(f"{name} {number}", tensor.read)


def said(seen: Seen, *groups: Iterable[Any]) -> None:
    seen.told += [str(one) for group in groups for one in group]


def analyse(folder: Path, **settings: Any) -> Seen:
    """The whole of `analyze` and of `inspect`: rows are the numbers."""
    seen = Seen()
    found = survey([folder], **settings)
    described = preview(found)
    seen.told += [str(one) for one in (*described["skips"], *described["notes"])]
    analysis = analyze_runs(found, Selection.of(), engine=Inline())
    said(seen, analysis.skips, analysis.notes)
    for number, row in enumerate(analysis.rows):
        seen.numbers[str(number)] = digest(row)
    return seen


def analyse_into(folder: Path) -> Seen:
    """The whole of `analyze`, with the results that it writes, opened again."""
    seen, out = analyse(folder), folder.parent / f"results of {folder.name}"
    engine = Inline()
    if analyze_runs(survey([folder]), Selection.of(), out=out, engine=engine).measured:
        rs.open_results(out).metrics.to_csv()
    return seen


def read_family_file(folder: Path) -> Seen:
    """A model that is read as the family of a file."""
    return analyse(folder / "checkpoint-1", family=folder / "family.toml")


def quietly(read: Reader, folder: Path) -> Seen:
    """Read with our own warnings among what is told, and any other as an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", RankscopeWarning)
        seen = read(folder)
    seen.told += [str(one.message) for one in caught]
    return seen


def _below(folder: Path) -> list[Path]:
    """The checkpoint in a folder: the folder, or the one file in it."""
    inner = [one for one in folder.iterdir() if not one.name.startswith(".")]
    return inner if len(inner) == 1 and inner[0].suffix in (".pt", ".npz") else [folder]
