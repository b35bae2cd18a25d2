"""What calls that fill a results folder do around their pipeline: checks, recall, report."""

from __future__ import annotations

import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rankscope.addresses import is_address
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run, listed
from rankscope.checkpoints.survey import Survey
from rankscope.durable import require_writable, sweep
from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.pipeline.engine import Engine, ResultT, TaskT
from rankscope.pipeline.execution import EntryT, Executed, Meter, Plans, Store, execute
from rankscope.results.columns import (
    REPRESENTATIONS_FOLDER,
    SCORES_FOLDER,
    SPECTRA_FOLDER,
    SUBSPACES_FOLDER,
)
from rankscope.results.record import is_intact, read_record

if TYPE_CHECKING:
    import pandas as pd

Paths = str | Path | Iterable[str | Path]
KeptT = TypeVar("KeptT")


@dataclass(frozen=True)
class CallResult(ABC):
    """The result of a call, computed now or recalled from an earlier one.

    Attributes
    ----------
    skips
        What has no result, and why.
    notes
        Remarks where nothing is missing.
    mended
        What was damaged in the store and recomputed: reported by this call only.
    computed
        Number of entries that were not in the store.
    key
        Digest of what the results depend on; None if something failed that may succeed on a retry.
    """

    skips: tuple[Skip, ...]
    notes: tuple[Skip, ...]
    mended: tuple[Skip, ...]
    computed: int
    key: str | None

    @property
    @abstractmethod
    def measured(self) -> int:
        """Number of results; where there is none, no table is written."""

    @property
    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The requested rows."""


def recalled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `CallResult` that is recalled from the record of an earlier call."""
    said = {
        name: tuple(Skip(**line) for line in record[entry])
        for name, entry in (("skips", "skipped"), ("notes", "notes"))
    }
    return said | {"mended": (), "computed": 0, "key": record["key"]}


def listed_paths(paths: Paths) -> list[str | Path]:
    """One path or several, as a list."""
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def require_steps(count: int, runs: Sequence[Run]) -> None:
    """Raise `WrongSettingError` if none of the requested steps exists."""
    if not count:
        available = "; ".join(f"{run.name}: {listed(run.steps)}" for run in runs)
        raise WrongSettingError(f"no checkpoint at the requested `steps`; available: {available}")


def require_out(out: Path | None, runs: Iterable[Run]) -> None:
    """Check that results can be written, and not over their inputs.

    Raises
    ------
    WrongSettingError
        If ``out`` is one of the inputs, in a checkpoint, or not on this machine.
    OSError
        If it cannot be written.
    """
    if out is None:
        return
    if is_address(out):
        raise WrongSettingError("is not on this machine: choose a folder for `out`", path=out)
    runs = list(runs)
    inputs = {path.resolve() for run in runs for path in (run.path, *(c.path for c in run))}
    if out.resolve() in inputs:
        raise WrongSettingError("is one of the inputs: choose another folder for `out`", path=out)
    if any(c.path.resolve() in out.resolve().parents for run in runs for c in run):
        raise WrongSettingError("is in a checkpoint: choose another folder for `out`", path=out)
    require_writable(out)


def sweep_results(out: Path | None) -> None:
    """Remove what killed calls left half written in a results folder and its stores."""
    if out is None:
        return
    names = SPECTRA_FOLDER, SUBSPACES_FOLDER, SCORES_FOLDER, REPRESENTATIONS_FOLDER
    stores = [out / name for name in names]
    for folder in [out, *stores, *(below for store in stores for below in store.rglob("*/"))]:
        sweep(folder)


@contextmanager
def results_folder(out: Path | None) -> Iterator[Path]:
    """Yield the results folder: a temporary one where nothing is to be kept."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="rankscope-") as folder:
        yield Path(folder)


def carried_out(
    plans: Plans[TaskT],
    keep: Callable[[Executed[TaskT, EntryT]], KeptT],
    *,
    store: Store[TaskT, ResultT, EntryT],
    engine: AbstractContextManager[Engine[TaskT, ResultT]],
    meter: Meter,
    found: Survey,
) -> tuple[dict[str, Any], list[KeptT]]:
    """Carry out plans.

    Parameters
    ----------
    keep
        Takes from each plan's entries what the call needs, so that not all are in memory at once.
    found
        The survey that found the runs, with what it reported.

    Returns
    -------
    Fields of a `CallResult`, and what was kept from each plan, in order.
    """
    done = []
    for executed in execute(plans, store=store, engine=engine, meter=meter):
        done.append((replace(executed, entries=()), keep(executed)))
    done.sort(key=lambda pair: pair[0].number)
    skips = (*found.skips, *(skip for executed, _ in done for skip in executed.skips))
    fields = {
        "skips": tuple(dict.fromkeys(skips)),
        "notes": tuple(dict.fromkeys((*found.notes, *plans.notes))),
        "mended": tuple(skip for executed, _ in done for skip in executed.mended),
        "computed": sum(executed.computed for executed, _ in done),
        "key": None if any(executed.has_failed for executed, _ in done) else plans.key,
    }
    return fields, [kept for _, kept in done]


def recorded(
    path: Path, plans: Plans[TaskT], store: Store[TaskT, ResultT, EntryT]
) -> dict[str, Any] | None:
    """Content of a record, if its results are those of the plans and all are there.

    Reads headers, and the tables for their digests: a table that was emptied, damaged or replaced
    by another call's is written again, as is a removed file of the store.
    """
    if not is_intact(path):
        return None
    record = read_record(path)
    if not record.get("key"):
        return None
    are_there = [store.path(plan).is_file() for plan in plans if plan.tasks]
    return record if all(are_there) and record["key"] == plans.key else None


def reported(found: CallResult) -> pd.DataFrame:
    """The table of a call from Python, with what was skipped as a warning."""
    table = found.table
    if found.notes or found.mended:
        table.attrs["notes"] = [vars(note) for note in (*found.mended, *found.notes)]
    if found.skips:
        table.attrs["skipped"] = [vars(skip) for skip in found.skips]
        message = f"{len(found.skips)} skipped, the first: {found.skips[0]}"
        warnings.warn(message, RankscopeWarning, stacklevel=3)
    if not found.measured and found.notes:
        message = f"nothing was measured: {found.notes[-1]}"
        warnings.warn(message, RankscopeWarning, stacklevel=3)
    return table
