"""From plans to a store: what it lacks is computed, and a file is written when it is complete."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rankscope.checkpoints.file_states import changed, state_of
from rankscope.checkpoints.skip import Skip
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Engine, Failure, Job, ResultT, Task, TaskT

Progress = Callable[[float, str], None]  # share of all work done; what is being worked on


class Stored(Protocol):
    """An entry of a file of the store."""

    @property
    def key(self) -> str:
        """Digest of everything that it was computed from."""


EntryT = TypeVar("EntryT", bound=Stored)
ResultT_contra = TypeVar("ResultT_contra", contravariant=True)


@dataclass(frozen=True)
class Plan(Generic[TaskT]):
    """What is requested of one run at one step, all in one file of the store.

    Attributes
    ----------
    about
        What the caller needs to know when it is done.
    """

    run: str
    step: int
    tasks: tuple[TaskT, ...]
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
    about: Any = None


def skip_of(error: RankscopeError, path: Path) -> Skip:
    """The skip that an error causes: of the file that it names, or else of ``path``."""
    return Skip(error.path or str(path), error.tensor or "", error.reason, error.message)


def skip_of_failure(failure: Failure, path: Path) -> Skip:
    """The skip that a failure causes: of the file that it names, or else of ``path``."""
    return Skip(failure.path or str(path), failure.tensor, failure.reason, failure.message)


def recomputed(error: RankscopeError, path: Path) -> Skip:
    """The remark on a damaged file of a store, which counts as empty."""
    message = f"{error.message}: what this step needs is recomputed"
    return Skip(str(path), "", "damaged-store", message)


class Store(Protocol[TaskT, ResultT_contra, EntryT]):
    """Where results are kept, and what is kept of each."""

    def path(self, plan: Plan[TaskT]) -> Path:
        """File with the entries of a plan."""

    def read(self, path: Path) -> list[EntryT]:
        """Entries of a file; none where there is no file. A damaged one raises `RankscopeError`."""

    def write(self, path: Path, stored: list[EntryT], new: list[EntryT]) -> None:
        """Write a file in one go: new entries, and stored ones that they do not replace."""

    def entries(self, task: TaskT, result: ResultT_contra) -> list[EntryT]:
        """What is kept of a result."""

    def failed(self, task: TaskT, failure: Failure) -> tuple[list[EntryT], Skip]:
        """What represents a failure among the results, never stored, and the skip to report."""

    def fault(self, task: TaskT, entry: EntryT) -> Skip | None:
        """Why an entry is not a measurement; None if it is one."""


@dataclass(frozen=True)
class Executed(Generic[TaskT, EntryT]):
    """The outcome of a plan: every entry is now in the store, or has failed.

    Attributes
    ----------
    number
        Index of the plan among all.
    entries
        What was requested, in the order of the plan's tasks.
    skips
        What has no measurement, and why.
    computed
        Number of entries that the store did not have.
    has_failed
        Whether a task failed that may succeed on a retry.
    mended
        What was damaged in the store and recomputed.
    """

    number: int
    plan: Plan[TaskT]
    entries: tuple[EntryT, ...] = ()
    skips: tuple[Skip, ...] = ()
    computed: int = 0
    has_failed: bool = False
    mended: tuple[Skip, ...] = ()


class Plans(Generic[TaskT]):
    """Plans, handed out once; afterwards the digest of all that the results depend on.

    The key covers the plans as handed out, not the files as they are later: what changed during a
    call does not count as done.

    Parameters
    ----------
    plans
        Made on demand.
    about
        What else the results depend on, as plain values.

    Attributes
    ----------
    notes
        Remarks where nothing is missing.
    """

    def __init__(self, plans: Iterable[Plan[TaskT]], *about: object) -> None:
        self._plans = plans
        self._digest = hashlib.blake2b(repr(about).encode(), digest_size=12)
        self.notes: list[Skip] = []

    def __iter__(self) -> Iterator[Plan[TaskT]]:
        for plan in self._plans:
            keys = [task.key for task in plan.tasks]
            said = plan.skips, plan.notes
            self._digest.update(repr((plan.run, plan.step, keys, said)).encode())
            self.notes += plan.notes
            yield plan

    @property
    def key(self) -> str:
        """Digest of the plans so far."""
        return self._digest.hexdigest()


class Meter:
    """Progress over all plans, weighted equally."""

    def __init__(self, progress: Progress | None, plans: int) -> None:
        self._progress, self._plans = progress, max(plans, 1)
        self._done = 0.0

    def add(self, share: float, plan: Plan[TaskT]) -> None:
        """Report that this share of a plan was just done."""
        self._done += share
        self.show(0.0, plan.run, plan.step)

    def show(self, share: float, run: str, step: int) -> None:
        """Report that this share of a task is done, which `add` counts when it is complete."""
        if self._progress is not None:
            self._progress(min((self._done + share) / self._plans, 1.0), f"{run}, step {step}")


@dataclass
class _OpenPlan(Generic[TaskT, EntryT]):
    """A plan with unfinished tasks."""

    number: int
    plan: Plan[TaskT]
    path: Path
    stored: list[EntryT]
    mended: tuple[Skip, ...]
    missing: list[TaskT] = field(default_factory=list)
    new: list[EntryT] = field(default_factory=list)
    failed: list[EntryT] = field(default_factory=list)
    failed_keys: set[str] = field(default_factory=set)
    skips: list[Skip] = field(default_factory=list)
    done: int = 0

    @cached_property
    def work(self) -> float:
        return sum(task.work for task in self.missing)


def execute(
    plans: Iterable[Plan[TaskT]],
    *,
    store: Store[TaskT, ResultT, EntryT],
    engine: AbstractContextManager[Engine[TaskT, ResultT]],
    meter: Meter,
) -> Iterator[Executed[TaskT, EntryT]]:
    """Yield the outcome of each plan as soon as it is complete and in the store.

    Parameters
    ----------
    plans
        Consumed as the work proceeds.
    engine
        What carries out the tasks; entered here.
    meter
        Shows what is done.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    unfinished: dict[int, _OpenPlan[TaskT, EntryT]] = {}
    complete: deque[Executed[TaskT, EntryT]] = deque()

    def iter_jobs() -> Iterator[Job[TaskT]]:
        for number, plan in enumerate(plans):
            if not plan.tasks:
                complete.append(Executed(number, plan, skips=plan.skips))
                meter.add(1.0, plan)
                continue
            opened = _opened(number, plan, store)
            if not opened.missing:
                complete.append(_closed(opened, store))
                meter.add(1.0, plan)
                continue
            unfinished[number] = opened
            for task in sorted(opened.missing, key=lambda task: task.work, reverse=True):
                yield Job(number, task)

    with engine as workers:
        for job, result in workers.run(iter_jobs()):
            opened = unfinished[job.plan]
            _take(opened, job.task, result, store)
            meter.add(job.task.work / opened.work, opened.plan)
            if opened.done == len(opened.missing):
                complete.append(_closed(unfinished.pop(job.plan), store))
            while complete:
                yield complete.popleft()
    yield from complete


def _opened(
    number: int, plan: Plan[TaskT], store: Store[TaskT, ResultT, EntryT]
) -> _OpenPlan[TaskT, EntryT]:
    """A plan with its stored entries; a damaged file counts as empty, and is replaced."""
    path = store.path(plan)
    stored: list[EntryT] = []
    mended: tuple[Skip, ...] = ()
    try:
        stored = store.read(path)
    except RankscopeError as error:
        mended = (recomputed(error, path),)
    held = {entry.key for entry in stored}
    missing = [task for task in plan.tasks if task.key not in held]
    return _OpenPlan(number, plan, path, stored, mended, missing)


def _take(
    opened: _OpenPlan[TaskT, EntryT],
    task: TaskT,
    result: ResultT | Failure,
    store: Store[TaskT, ResultT, EntryT],
) -> None:
    """Add the result of a task; a failure is an entry too, but is tried again next time."""
    opened.done += 1
    path = _changed(task)
    if path is not None:
        error = changed(path)
        result = Failure(error.reason, error.message, path)
    if isinstance(result, Failure):
        entries, skip = store.failed(task, result)
        opened.failed += entries
        opened.failed_keys.add(task.key)
        opened.skips.append(skip)
    else:
        opened.new += store.entries(task, result)


def _changed(task: Task) -> str | None:
    """A file that has been written to since it was planned.

    A file that is gone by now was checked by its reader: see `rankscope.checkpoints.file_states`.
    """
    for path, state in task.files:
        if state_of(path) not in (state, None):
            return path
    return None


def _closed(
    opened: _OpenPlan[TaskT, EntryT], store: Store[TaskT, ResultT, EntryT]
) -> Executed[TaskT, EntryT]:
    """Write the file, if there is anything new."""
    if opened.new:
        store.write(opened.path, opened.stored, opened.new)
    by_key: dict[str, list[EntryT]] = {}
    for entry in opened.stored + opened.new + opened.failed:
        by_key.setdefault(entry.key, []).append(entry)
    asked = [(task, entry) for task in opened.plan.tasks for entry in by_key.get(task.key, ())]
    faults = (
        store.fault(task, entry) for task, entry in asked if task.key not in opened.failed_keys
    )
    return Executed(
        opened.number,
        opened.plan,
        tuple(entry for _, entry in asked),
        (*opened.plan.skips, *opened.skips, *(skip for skip in faults if skip is not None)),
        computed=len(opened.new),
        has_failed=bool(opened.failed_keys),
        mended=opened.mended,
    )
