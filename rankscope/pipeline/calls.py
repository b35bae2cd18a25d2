"""What calls that fill a results folder do around their pipeline: checks and execution."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rankscope.addresses import is_address
from rankscope.checkpoints.run import Run, listed
from rankscope.checkpoints.survey import Survey
from rankscope.durable import require_writable
from rankscope.errors import WrongSettingError, require_folder
from rankscope.pipeline.engine import Engine, ResultT, TaskT
from rankscope.pipeline.execution import EntryT, Executed, Meter, Plans, Store, execute
from rankscope.results.run_folders import rename_older

Paths = str | Path | Iterable[str | Path]
KeptT = TypeVar("KeptT")


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

    Stores of these runs that an earlier version named otherwise get their present names.

    Raises
    ------
    WrongSettingError
        If ``out`` is one of the inputs, in a checkpoint, a file, or not on this machine.
    OSError
        If it cannot be written.
    """
    if out is None:
        return
    if is_address(out):
        raise WrongSettingError("is not on this machine: choose a folder for `out`", path=out)
    runs, real = list(runs), out.resolve()
    checkpoints = {checkpoint.path.resolve() for run in runs for checkpoint in run}
    if real in checkpoints | {run.path.resolve() for run in runs}:
        raise WrongSettingError("is one of the inputs: choose another folder for `out`", path=out)
    if not checkpoints.isdisjoint(real.parents):
        raise WrongSettingError("is in a checkpoint: choose another folder for `out`", path=out)
    require_folder(out)
    require_writable(out)
    rename_older(out, (run.name for run in runs))


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
        bare = replace(executed, entries=(), plan=replace(executed.plan, tasks=(), about=None))
        done.append((bare, keep(executed)))
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
