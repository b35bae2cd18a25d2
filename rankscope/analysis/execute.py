"""From plans to the store: decompose what it lacks, and write each step when it is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.analysis.engines import Job, LocalWorkers, Outcome
from rankscope.analysis.plan import StepPlan, Task
from rankscope.analysis.worker import Failure
from rankscope.checkpoints.contents import Skip
from rankscope.errors import RankscopeError
from rankscope.spectra.spectrum import Spectrum, no_spectrum
from rankscope.spectra.store import Entry, read_entries, store_path, write_entries

MEASURED = ("ok", "zero", "vector", "empty")
Progress = Callable[[float, str], None]  # share of a step that was just done; which step


@dataclass
class StepResult:
    """One run at one step, of which every spectrum is now in the store or has failed."""

    run: str
    step: int
    path: Path
    keys: tuple[str, ...]  # of the store's entries that were asked for, in the order of the plan
    failures: list[Entry] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    computed: int = 0  # spectra that the store did not have


@dataclass
class _OpenStep:
    """A step of which some tasks are not done."""

    result: StepResult
    tasks: tuple[Task, ...]
    stored: list[Entry]
    missing: list[Task]
    new: list[Entry] = field(default_factory=list)
    done: int = 0

    @property
    def work(self) -> float:
        return sum(_work(task) for task in self.missing) or 1.0


def execute(
    plans: Iterable[StepPlan], *, folder: Path, jobs: int, progress: Progress | None = None
) -> Iterator[StepResult]:
    """Yield each step's result as soon as the step is complete and in the store.

    Parameters
    ----------
    plans
        What is asked, step by step; drawn on as the work proceeds.
    folder
        The spectra store.
    jobs
        Number of worker processes.
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
                _tell(progress, 1.0, step.result)
                continue
            steps[number] = step
            for task in sorted(step.missing, key=_work, reverse=True):
                yield Job(number, task)

    with LocalWorkers(jobs) as workers:
        for job, outcome in workers.run(iter_jobs()):
            step = steps[job.plan]
            _take(step, job.task, outcome)
            _tell(progress, (_work(job.task) or 1.0) / step.work, step.result)
            if step.done == len(step.missing):
                complete.append(_closed(steps.pop(job.plan)))
            while complete:
                yield complete.popleft()
    yield from complete


def _opened(plan: StepPlan, folder: Path) -> _OpenStep:
    path = store_path(folder, plan.run, plan.step)
    try:
        stored = read_entries(path)
    except RankscopeError:
        stored = []  # a damaged file is computed anew
    held = {entry.key for entry in stored}
    keys = tuple(task.key for task in plan.tasks)
    result = StepResult(plan.run, plan.step, path, keys, skips=list(plan.skips))
    return _OpenStep(
        result, plan.tasks, stored, [task for task in plan.tasks if task.key not in held]
    )


def _take(step: _OpenStep, task: Task, outcome: Outcome) -> None:
    """Add what a worker found; what failed is a row too, but is tried again next time."""
    step.done += 1
    if isinstance(outcome, Failure):
        step.result.failures.append(_entry(task, _failed(task, outcome), 0))
        name = outcome.tensor or task.component.name
        path = outcome.path or str(step.result.path)
        step.result.skips.append(Skip(path, name, outcome.reason, outcome.message))
        return
    step.new += [_entry(task, spectrum, head) for head, spectrum in enumerate(outcome)]


def _closed(step: _OpenStep) -> StepResult:
    """Write the step, if there is anything new; entries of the same matrices are replaced."""
    if step.new:
        replaced = {_identity(entry) for entry in step.new}
        kept = [entry for entry in step.stored if _identity(entry) not in replaced]
        write_entries(step.result.path, kept + step.new)
        step.result.computed = len(step.new)
    tasks = {task.key: task for task in step.tasks}
    step.result.skips += [
        _unmeasured(tasks[entry.key], entry.spectrum)
        for entry in step.stored + step.new
        if entry.key in tasks and entry.spectrum.status not in MEASURED
    ]
    return step.result


def _entry(task: Task, spectrum: Spectrum, head: int) -> Entry:
    where = task.component
    place = {
        "layer": where.layer,
        "role": where.role,
        "component": where.component,
        "head": head if where.heads else None,
        "expert": where.expert,
        "name": where.name,
    }
    return Entry(task.key, place, spectrum)


def _identity(entry: Entry) -> tuple[int | str | None, ...]:
    return tuple(entry.place[key] for key in ("component", "name", "head", "expert"))


def _failed(task: Task, failure: Failure) -> Spectrum:
    tensors = task.component.source.tensors()
    dtype = tensors[0].dtype if tensors else ""
    return no_spectrum((0, 0), dtype, f"skipped:{failure.reason}")


def _unmeasured(task: Task, spectrum: Spectrum) -> Skip:
    path = task.component.source.tensors()[0].path
    if spectrum.status == "nonfinite":
        return Skip(path, task.component.name, "nonfinite", "holds NaN or infinity: no spectrum")
    reason = spectrum.status.removeprefix("skipped:")
    return Skip(path, task.component.name, reason, "no decomposition passed its checks")


def _work(task: Task) -> float:
    return task.component.source.work


def _tell(progress: Progress | None, share: float, result: StepResult) -> None:
    if progress is not None:
        progress(share, f"{result.run}, step {result.step}")
