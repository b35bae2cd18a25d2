"""From plans to the store: decompose what it lacks, and write each step when it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rankscope.analysis.jobs import Engine, Failure, Job, Outcome
from rankscope.analysis.outcome import MEASURED
from rankscope.analysis.plan import StepPlan, Task
from rankscope.checkpoints.contents import Skip
from rankscope.errors import RankscopeError
from rankscope.results.measure import Row, row_of
from rankscope.results.spectra_store import Entry, read_entries, store_path, write_entries
from rankscope.spectra.spectrum import Spectrum, no_spectrum

OF_FILES = ("changed-while-reading", "damaged")  # reasons, where they name no tensor

Progress = Callable[[float, str], None]  # share of a step that was just done; which step


@dataclass(frozen=True)
class StepResult:
    """One run at one step, of which every spectrum is now in the store or has failed.

    Attributes
    ----------
    run, step
        Which step of which run.
    rows
        What was asked for, in the order of the plan.
    skips
        What has no measurement, and why.
    computed
        How many spectra the store did not have.
    has_failed
        Whether a task failed that may succeed when it is tried again.
    mended
        What of the store was damaged and is computed anew.
    """

    run: str
    step: int
    rows: tuple[Row, ...]
    skips: tuple[Skip, ...]
    computed: int
    has_failed: bool
    mended: tuple[Skip, ...] = ()


@dataclass
class _OpenStep:
    """A step of which some tasks are not done."""

    plan: StepPlan
    path: Path
    stored: list[Entry]
    missing: list[Task]
    new: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    mended: tuple[Skip, ...] = ()
    done: int = 0

    @cached_property
    def work(self) -> float:
        return sum(_work(task) for task in self.missing)


def execute(
    plans: Iterable[StepPlan],
    *,
    folder: Path,
    engine: AbstractContextManager[Engine],
    progress: Progress | None = None,
) -> Iterator[StepResult]:
    """Yield each step's result as soon as the step is complete and in the store.

    Parameters
    ----------
    plans
        What is asked, step by step; drawn on as the work proceeds.
    folder
        The spectra store.
    engine
        What decomposes; entered here.
    progress
        Called whenever something is done.

    Raises
    ------
    OSError
        If the store cannot be written.
    """
    steps: dict[int, _OpenStep] = {}
    complete: deque[StepResult] = deque()

    def iter_jobs() -> Iterator[Job]:
        for number, plan in enumerate(plans):
            step = _opened(plan, folder)
            if not step.missing:
                complete.append(_closed(step))
                _tell(progress, 1.0, plan)
                continue
            steps[number] = step
            for task in sorted(step.missing, key=_work, reverse=True):
                yield Job(number, task)

    with engine as workers:
        for job, outcome in workers.run(iter_jobs()):
            step = steps[job.plan]
            _take(step, job.task, outcome)
            _tell(progress, _work(job.task) / step.work, step.plan)
            if step.done == len(step.missing):
                complete.append(_closed(steps.pop(job.plan)))
            while complete:
                yield complete.popleft()
    yield from complete


def _opened(plan: StepPlan, folder: Path) -> _OpenStep:
    """A step with what the store has of it; a damaged file has nothing, and is replaced."""
    path = store_path(folder, plan.run, plan.step)
    mended: tuple[Skip, ...] = ()
    try:
        stored = read_entries(path)
    except RankscopeError as error:
        stored = []
        message = f"{error.message}: what is asked of this step is computed anew"
        mended = (Skip(str(path), "", "damaged-store", message),) if plan.tasks else ()
    held = {entry.key for entry in stored}
    missing = [task for task in plan.tasks if task.key not in held]
    return _OpenStep(plan, path, stored, missing, mended=mended)


def _take(step: _OpenStep, task: Task, outcome: Outcome) -> None:
    """Add what a worker found; what failed is a row too, but is tried again next time."""
    step.done += 1
    changed = task.changed
    if changed is not None:
        outcome = Failure(
            "changed-while-reading", "was written to while it was read: analyse again", changed
        )
    if isinstance(outcome, Failure):
        step.failed.append(_entry(task, _failed(task, outcome), 0))
        # What is of a whole file is said once, and not for each of its matrices.
        name = outcome.tensor or ("" if outcome.reason in OF_FILES else task.component.name)
        step.skips.append(Skip(outcome.path, name, outcome.reason, outcome.message))
    else:
        step.new += [_entry(task, spectrum, head) for head, spectrum in enumerate(outcome)]


def _closed(step: _OpenStep) -> StepResult:
    """Write the step, if there is anything new; entries of the same matrices are replaced."""
    if step.new:
        replaced = {_identity(entry) for entry in step.new}
        step.stored = [entry for entry in step.stored if _identity(entry) not in replaced]
        write_entries(step.path, step.stored + step.new)
    by_key: dict[str, list[Entry]] = {}
    for entry in step.stored + step.new + step.failed:
        by_key.setdefault(entry.key, []).append(entry)
    asked = [(task, entry) for task in step.plan.tasks for entry in by_key[task.key]]
    told = {entry.key for entry in step.failed}
    unmeasured = [
        _unmeasured(task, entry.spectrum)
        for task, entry in asked
        if entry.key not in told and entry.spectrum.status not in MEASURED
    ]
    return StepResult(
        step.plan.run,
        step.plan.step,
        tuple(row_of(step.plan.run, step.plan.step, entry) for _, entry in asked),
        (*step.plan.skips, *step.skips, *unmeasured),
        computed=len(step.new),
        has_failed=bool(step.failed),
        mended=step.mended,
    )


def _entry(task: Task, spectrum: Spectrum, head: int) -> Entry:
    where = task.component
    place = {
        "layer": where.layer,
        "role": where.role,
        "component": where.kind,
        "head": head if where.heads else None,
        "expert": where.expert,
        "name": where.name,
        "since": where.since,
        "restarts": where.restarts,
        "window": where.window,
    }
    return Entry(task.key, place, spectrum)


def _identity(entry: Entry) -> tuple[int | str | None, ...]:
    return tuple(entry.place[key] for key in ("component", "name", "head", "expert"))


def _failed(task: Task, failure: Failure) -> Spectrum:
    tensors = task.component.recipe.tensors()
    dtype = tensors[0].dtype if tensors else ""
    return no_spectrum((0, 0), dtype, f"skipped:{failure.reason}")


def _unmeasured(task: Task, spectrum: Spectrum) -> Skip:
    path = task.component.recipe.tensors()[0].paths[0]
    if spectrum.status == "nonfinite":
        return Skip(path, task.component.name, "nonfinite", "holds NaN or infinity: no spectrum")
    reason = spectrum.status.removeprefix("skipped:")
    return Skip(path, task.component.name, reason, "no decomposition passed its checks")


def _work(task: Task) -> float:
    return task.component.recipe.work or 1.0


def _tell(progress: Progress | None, share: float, plan: StepPlan) -> None:
    if progress is not None:
        progress(share, f"{plan.run}, step {plan.step}")
