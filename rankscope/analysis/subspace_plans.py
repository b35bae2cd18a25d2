"""Which matrices to follow through their steps, and where their comparisons are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.analysis.history import Asked, iter_steps
from rankscope.analysis.request import Selection
from rankscope.analysis.spectra_files import OF_FILES
from rankscope.analysis.spectra_tasks import SeenFiles, task_of
from rankscope.analysis.subspace_series import Compared, Position, SubspaceSeries
from rankscope.checkpoints.contents import Delta, Skip
from rankscope.checkpoints.file_states import FileStates, State
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Survey
from rankscope.components.component import Component
from rankscope.components.recipes import Products, Recipe, Weight
from rankscope.pipeline.engine import Failure
from rankscope.pipeline.execution import Executed, Plan, Plans
from rankscope.results.columns import SUBSPACES_FOLDER
from rankscope.results.measure import Row
from rankscope.results.subspace_store import (
    VERSION,
    Comparison,
    comparisons_path,
    read_comparisons,
    write_comparisons,
)

FOLLOWED = ("weight", "adapter", "merge")
# Steps compared in one task, which also decomposes the step before the segment, and the first and
# the last of all. Segments begin at fixed steps: without the last, a new step of a run changes only
# one of them.
SEGMENT = 8


@dataclass(frozen=True)
class SubspaceTask:
    """A segment of a series of one matrix.

    Attributes
    ----------
    component
        The matrix at the last step, for its coordinates.
    recipe
        The series; it reads the matrices one by one.
    key, files
        As in `SpectraTask`.
    """

    component: Component
    recipe: SubspaceSeries
    key: str
    files: FileStates

    @property
    def work(self) -> float:
        """Approximate number of operations."""
        return self.recipe.work or 1.0


@dataclass
class _Followed:
    """A matrix since the last break of its run, or since it has its shape.

    Attributes
    ----------
    component
        The matrix at its latest step.
    shape
        Its shape; empty as long as that is not known.
    positions
        Its steps, with what each is read from.
    """

    component: Component
    shape: tuple[int, ...] = ()
    ranks: set[int] = field(default_factory=set)
    positions: list[Position] = field(default_factory=list)
    files: dict[str, State | None] = field(default_factory=dict)


class SubspacePlans(Plans[SubspaceTask]):
    """One plan for each matrix that exists at two or more steps; reads headers only.

    Attributes
    ----------
    count
        Number of plans: a matrix is followed to its last step before it is planned.
    """

    def __init__(self, found: Survey, selection: Selection) -> None:
        plans = [plan for run in found.runs for plan in _plan_run(run, selection)]
        self.count = len(plans)
        super().__init__(plans, VERSION, selection.subspaces, selection.against)


def _plan_run(run: Run, selection: Selection) -> Iterator[Plan[SubspaceTask]]:
    components = tuple(name for name in FOLLOWED if name in selection.components)
    seen = SeenFiles()
    followed: dict[tuple[str, str], _Followed] = {}
    parts: list[_Followed] = []
    for step in iter_steps(run, Asked(components, selection.has_step, selection.has)):
        if step.breaks:
            followed = {key: one for key, one in followed.items() if key[0] == "merge"}
        seen.add(step)
        for component in filter(selection.has, step.components):
            task = task_of(component, seen)
            key = component.kind, component.name
            shape = _shape(component.recipe)
            if key not in followed or (shape and followed[key].shape not in ((), shape)):
                followed[key] = _Followed(component)
                parts.append(followed[key])
            one = followed[key]
            one.component, one.shape = component, shape or one.shape
            one.ranks |= _ranks(component)
            one.positions.append(Position(step.step, component.recipe, task.key))
            one.files |= dict(task.files)
    by_file: dict[tuple[str, str], list[SubspaceTask]] = {}
    for one in parts:
        if len(one.positions) > 1:
            key = one.component.kind, one.component.name
            by_file.setdefault(key, []).extend(_segments(one, selection))
    for tasks in by_file.values():
        last = max(task.recipe.positions[-1].step for task in tasks)
        yield Plan(run.name, last, tuple(tasks))


def _segments(one: _Followed, selection: Selection) -> Iterator[SubspaceTask]:
    for start in range(0, len(one.positions) - 1, SEGMENT):
        series = SubspaceSeries(
            one.component.kind,
            one.component.name,
            selection.subspaces or 0,
            tuple(sorted(one.ranks)),
            tuple(one.positions[start : start + SEGMENT + 1]),
            continues=start > 0,
            previous="previous" in selection.against,
            first=one.positions[0] if "first" in selection.against else None,
            last=one.positions[-1] if "last" in selection.against else None,
        )
        # With the steps, which a comparison states: the same files may be given other ones.
        read = [(position.step, position.key) for position in series.read]
        keys = VERSION, series.most, series.ranks, sorted(selection.against), read
        digest = hashlib.blake2b(repr(keys).encode(), digest_size=12).hexdigest()
        paths = dict.fromkeys(path for tensor in series.tensors() for path in tensor.paths)
        files = tuple((path, one.files.get(path)) for path in paths)
        yield SubspaceTask(one.component, series, digest, files)


def _shape(recipe: Recipe) -> tuple[int, ...]:
    """The shape of a matrix; empty if its tensors do not fit together."""
    if isinstance(recipe, Weight):
        return recipe.tensor.shape
    return recipe.adapters[0].shape if isinstance(recipe, Products) else ()


def _ranks(component: Component) -> set[int]:
    """Ranks of a matrix's adapters, at which its subspaces are also compared."""
    recipe = component.recipe
    deltas: tuple[Delta | None, ...] = ()
    if isinstance(recipe, Weight):
        deltas = (recipe.adapter,)
    elif isinstance(recipe, Products):
        deltas = recipe.adapters
    return {delta.rank for delta in deltas if delta is not None}


def subspace_rows(executed: Executed[SubspaceTask, Comparison]) -> list[Row]:
    """Rows of one matrix in the table of subspaces."""
    if not executed.plan.tasks:
        return []
    component = executed.plan.tasks[-1].component
    place = {
        "layer": component.layer,
        "role": component.role,
        "component": component.kind,
        "head": None,
        "expert": component.expert,
        "name": component.name,
    }
    return [
        {"run": executed.plan.run, "step": one.step, "against": one.against, **place, **vars(found)}
        for one in sorted(
            executed.entries, key=lambda one: (one.step, one.against > one.step, -one.against)
        )
        for found in one.measures
    ]


class SubspaceFiles:
    """Comparisons in the results folder: one file per matrix."""

    def __init__(self, out: Path) -> None:
        self._folder = out / SUBSPACES_FOLDER

    def path(self, plan: Plan[SubspaceTask]) -> Path:
        """File of a matrix."""
        component = plan.tasks[0].component
        return comparisons_path(self._folder, plan.run, component.kind, component.name)

    def read(self, path: Path) -> list[Comparison]:
        """Comparisons of a file; none where it is absent or of another version."""
        return read_comparisons(path)

    def write(self, path: Path, stored: list[Comparison], new: list[Comparison]) -> None:
        """Write the comparisons of a file; a new one replaces that of the same two steps.

        The others of its task go too: the rest would be taken for everything that the task gave.
        """
        places = set(map(_place, new))
        replaced = {one.key for one in stored if _place(one) in places}
        write_comparisons(path, [one for one in stored if one.key not in replaced] + new)

    def entries(self, task: SubspaceTask, result: list[Compared]) -> list[Comparison]:
        """The comparisons of a segment."""
        return [Comparison(task.key, one.step, one.against, one.measures) for one in result]

    def failed(self, task: SubspaceTask, failure: Failure) -> tuple[list[Comparison], Skip]:
        """No comparison, and a skip; what concerns a whole file is said once, not per matrix."""
        is_of_file = failure.reason in OF_FILES
        name = failure.tensor or ("" if is_of_file else task.component.name)
        return [], Skip(failure.path, name, failure.reason, failure.message)

    def fault(self, task: SubspaceTask, entry: Comparison) -> Skip | None:
        """None: a comparison without a number says why in its status."""
        return None


def _place(one: Comparison) -> tuple[int, int]:
    """The two steps; there is one comparison with the last step, whatever its number."""
    return one.step, min(one.against, one.step)
