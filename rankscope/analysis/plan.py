"""What to decompose: the matrices of every run, step by step, as tasks for the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rankscope.analysis.history import iter_steps
from rankscope.analysis.reasons import Facts, why_none
from rankscope.analysis.request import Selection
from rankscope.analysis.spectra_tasks import SeenFiles, SpectraTask, fingerprint_of, task_of
from rankscope.analysis.trails import Past, as_skips, noted, past_of
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.steps import step_in_name
from rankscope.checkpoints.survey import Survey
from rankscope.checkpoints.training_log import log_file
from rankscope.components.component import Component
from rankscope.components.selection import COMPONENTS
from rankscope.pipeline import execution
from rankscope.pipeline.execution import Plan
from rankscope.results import spectra_store as store
from rankscope.results.step_rows import Spool

TableOrder = tuple[int, bool, int, int, int, str]


def count_steps(run: Run, selection: Selection) -> int:
    """Number of steps that `plan_run` plans."""
    merged = (step_in_name(path.stem) for path in run.merge_files)
    steps = {*run.steps, *(step for step in merged if step is not None)}
    return sum(map(selection.has_step, steps))


class SpectraPlans(execution.Plans[SpectraTask]):
    """The plans of all runs; afterwards also where series break, and why components are missing.

    The results also depend on what was reported when the runs were found.

    Parameters
    ----------
    spool
        Of a results folder, whose steps are not planned again where nothing has changed.
    recheck
        Plan them nevertheless.

    Attributes
    ----------
    breaks
        The last step of each run that does not continue the previous ones, if any.
    folders
        Where its tensors are.
    is_certain
        Whether no file that was looked for in vain would change the results if it appeared.
    """

    def __init__(
        self,
        found: Survey,
        selection: Selection,
        *,
        spool: Spool | None = None,
        recheck: bool = False,
    ) -> None:
        self._selection, self._spool, self._recheck = selection, spool, recheck
        self._reasons: list[Skip] = []
        self.breaks: dict[str, int] = {}
        self.folders: set[str] = set()
        self.is_certain = True
        since = selection.since and str(selection.since.path)
        asked = replace(selection, since=None), since
        runs = [_about(run) for run in found.runs]
        plans = self._iter_plans(found.runs)
        super().__init__(plans, store.VERSION, asked, found.skips, found.notes, runs)

    def __iter__(self) -> Iterator[Plan[SpectraTask]]:
        for plan in super().__iter__():
            self.folders |= {
                path.rpartition(os.sep)[0] for task in plan.tasks for path, _ in task.files
            }
            yield plan
        self.notes += self._reasons

    def _iter_plans(self, runs: Sequence[Run]) -> Iterator[Plan[SpectraTask]]:
        for run in runs:
            facts = Facts(whole_cycles=self._selection.windows == "cycles")
            past = past_of(run, self._selection, self._spool, recheck=self._recheck)
            for _, stored in past.steps:
                self.folders |= {path.rpartition(os.sep)[0] for path in stored.about["beside"]}
            yield from plan_run(run, self._selection, facts, past=past)
            if facts.last_break is not None:
                self.breaks[run.name] = facts.last_break
            self.is_certain &= not facts.lacks_base
            self._explain(run, facts)

    def _explain(self, run: Run, facts: Facts) -> None:
        """Say why components requested by name are missing; if all are, explain one."""
        missing = [name for name in self._selection.named if name not in facts.planned]
        if not missing and not facts.planned:
            components = self._selection.components
            missing = [next((name for name in components if name in facts.offered), components[0])]
        for name in missing:
            if why := why_none(name, facts):
                message = f"has no {name.replace('_', ' ')}: {why}"
                self._reasons.append(Skip(str(run.path), "", f"no-{name}", message))


def plan_run(
    run: Run, selection: Selection, facts: Facts | None = None, *, past: Past | None = None
) -> Iterator[Plan[SpectraTask]]:
    """Plan a run, step by step in ascending order; reads headers only.

    Parameters
    ----------
    facts
        Collects facts about the run.
    past
        The first steps, if their rows are known: their plans have no tasks, and hold the rows.
    """
    seen = SeenFiles(run.merge_files)
    past, facts = past or Past(), facts or Facts()
    facts.restore(past.facts)
    for at, stored in past.steps:
        skips, notes = (as_skips(stored.about[name]) for name in ("skips", "notes"))
        yield Plan(run.name, at, (), skips, notes, stored)
    for step in iter_steps(run, selection.asked, past.begin):
        asked = sorted(filter(selection.has, step.components), key=_order)
        facts.add(step, asked)
        seen.add(step)
        tasks = tuple(task_of(component, seen) for component in asked)
        about = None
        if past.trail is not None:
            files = (path for task in tasks for path, _ in task.files)
            about = noted(past.trail, step, facts, files=files)
        yield Plan(run.name, step.step, tasks, step.skips, step.notes, about)


def _order(component: Component) -> TableOrder:
    return table_order(
        kind=component.kind,
        layer=component.layer,
        role=component.role,
        expert=component.expert,
        name=component.name,
    )


def table_order(
    *, kind: str, layer: int | None, role: str, expert: int | None, name: str
) -> TableOrder:
    """Sort key of the table: layers ascending, matrices outside layers last."""
    return (
        COMPONENTS.index(kind),
        layer is None,
        layer or 0,
        ROLES.index(role),
        expert or 0,
        name,
    )


def _about(run: Run) -> tuple[object, ...]:
    """What the record and the figures say about a run, apart from its spectra."""
    log = log_file(run)
    paths = [checkpoint.path for checkpoint in run]
    return run.path, run.unit, paths, None if log is None else fingerprint_of(str(log))
