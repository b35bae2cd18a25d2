"""What to decompose: the matrices of every run, step by step, as tasks for the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from rankscope.analysis.history import Asked, iter_steps
from rankscope.analysis.reasons import Facts, why_none
from rankscope.checkpoints.contents import Parameter, Skip
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.fingerprint import State, fingerprint, state_of
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.steps import StepRange, check_range, in_range, step_in_name
from rankscope.checkpoints.training_log import log_file
from rankscope.components.component import Component
from rankscope.components.selection import COMPONENTS, ON_REQUEST
from rankscope.errors import RankscopeError
from rankscope.results import spectra_store as store

CUMULATIVE = "cumulative_update"
Windows = Literal["steps", "cycles"]
OUTSIDE_LAYERS = ("embed", "unembed")  # left out unless asked for: they dwarf all the others


@dataclass(frozen=True)
class Selection:
    """Which matrices to analyse.

    Attributes
    ----------
    components
        Names of `COMPONENTS`, by default all but those ``ON_REQUEST``.
    roles
        Roles, by default all but the embeddings.
    layers
        Indices of layers; None for all.
    steps
        First step, last step (None for no end) and stride between them; None for all steps.
    since
        Where cumulative updates begin; None for the base model of an adapter where that is found,
        and else for the first step.
    windows
        ``steps``: updates from each checkpoint to the next. ``cycles``: of a run that recorded
        merges, from one merge to the next only; whole cycles are comparable, parts are not.
    """

    components: tuple[str, ...] = tuple(c for c in COMPONENTS if c not in ON_REQUEST)
    roles: tuple[str, ...] = tuple(r for r in ROLES if r not in OUTSIDE_LAYERS)
    layers: frozenset[int] | None = None
    steps: StepRange | None = None
    since: Checkpoint | None = None
    windows: Windows = "steps"

    def __post_init__(self) -> None:
        _check("kind of window", (self.windows,), get_args(Windows))
        _check("component", self.components, COMPONENTS)
        _check("role", self.roles, ROLES)
        check_range(self.steps)
        if self.since is not None and CUMULATIVE not in self.components:
            raise RankscopeError(f"a start is given for {CUMULATIVE}, which is not asked for")

    @classmethod
    def of(
        cls,
        *,
        components: Iterable[str] | None = None,
        roles: Iterable[str] | None = None,
        layers: Iterable[int] | None = None,
        steps: StepRange | None = None,
        since: Checkpoint | None = None,
        windows: Windows = "steps",
    ) -> Selection:
        """Selection in which None stands for the default.

        Where a start of cumulative updates is given, they are among the components by default.
        """
        default = cls()
        also = () if since is None else (CUMULATIVE,)
        return cls(
            (*default.components, *also) if components is None else tuple(components),
            default.roles if roles is None else tuple(roles),
            None if layers is None else frozenset(layers),
            steps,
            since,
            windows,
        )

    @property
    def asked(self) -> Asked:
        """What is wanted of every run."""
        is_whole = self.windows == "cycles"
        return Asked(self.components, self.has_step, self.has, self.since, is_whole)

    @property
    def named(self) -> tuple[str, ...]:
        """Components that were asked for by name: none where it is the default, or all."""
        default = Selection().components
        if self.since is not None and self.components == (*default, CUMULATIVE):
            return (CUMULATIVE,)
        return () if self.components in (default, COMPONENTS) else self.components

    def has_step(self, step: int) -> bool:
        """Whether this step is asked for."""
        return in_range(step, self.steps)

    def has(self, one: Component | Parameter) -> bool:
        """Whether this matrix is asked for."""
        in_layers = self.layers is None or one.layer in self.layers
        return one.role in self.roles and in_layers


@dataclass(frozen=True)
class Task:
    """One recipe to decompose, and the digest of all that its spectra depend on.

    Attributes
    ----------
    files
        The state of each of its files when this analysis first saw it: where its elements lie was
        read then, and holds for no other.
    """

    component: Component
    key: str
    files: tuple[tuple[str, State | None], ...] = ()

    @property
    def changed(self) -> str | None:
        """A file that was written to since; one that was removed gave what it held."""
        for path, state in self.files:
            if state_of(path) not in (state, None):
                return path
        return None


@dataclass(frozen=True)
class StepPlan:
    """Everything that is asked of one run at one step, and what is to be said of it."""

    run: str
    step: int
    tasks: tuple[Task, ...]
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
    breaks: bool = False


def count_steps(run: Run, selection: Selection) -> int:
    """Number of steps that `plan_run` plans."""
    merged = (step_in_name(path.stem) for path in run.merge_files)
    steps = {*run.steps, *(step for step in merged if step is not None)}
    return sum(map(selection.has_step, steps))


class Plans:
    """The plans of all runs, once; afterwards what the results depend on, and what is to be said.

    The key is of the plans that were handed out, and not of the files as they are later: what
    changed during an analysis is not taken for analysed.

    Parameters
    ----------
    said
        What is to be said of how the runs were found, on which the results depend too.

    Attributes
    ----------
    notes
        What is worth a line although nothing is missing.
    breaks
        The last step of each run that does not continue the steps before, if there is one.
    reasons
        Why a component that was asked for by name is not there, or a run has nothing at all.
    """

    def __init__(
        self, runs: Sequence[Run], selection: Selection, said: Sequence[Skip] = ()
    ) -> None:
        self._runs, self._selection = runs, selection
        since = selection.since and str(selection.since.path)
        asked = repr((store.VERSION, replace(selection, since=None), since, said))
        self._digest = hashlib.blake2b(asked.encode(), digest_size=12)
        self.notes: list[Skip] = []
        self.breaks: dict[str, int] = {}
        self.reasons: list[Skip] = []

    def __iter__(self) -> Iterator[StepPlan]:
        for run in self._runs:
            log = log_file(run)
            self._digest.update(repr((run.path, log and _fingerprint(str(log)))).encode())
            facts = Facts(whole_cycles=self._selection.windows == "cycles")
            for plan in plan_run(run, self._selection, facts):
                keys = [task.key for task in plan.tasks]
                said = plan.skips, plan.notes, plan.breaks
                self._digest.update(repr((plan.run, plan.step, keys, said)).encode())
                self.notes += plan.notes
                if plan.breaks:
                    self.breaks[run.name] = plan.step
                yield plan
            self._explain(run, facts)

    def _explain(self, run: Run, facts: Facts) -> None:
        """Say why what was asked for by name is not there; where nothing is, of one component."""
        missing = [name for name in self._selection.named if name not in facts.planned]
        if not missing and not facts.planned:
            components = self._selection.components
            missing = [next((one for one in components if one in facts.offered), components[0])]
        for name in missing:
            message = f"has no {name.replace('_', ' ')}: {why_none(name, facts)}"
            self.reasons.append(Skip(str(run.path), "", f"no-{name}", message))

    @property
    def key(self) -> str:
        """Digest of the plans so far."""
        return self._digest.hexdigest()


def plan_run(run: Run, selection: Selection, facts: Facts | None = None) -> Iterator[StepPlan]:
    """Plan a run, step by step in ascending order; reads headers only.

    Parameters
    ----------
    facts
        Is told what the run holds.
    """
    seen = {str(path): state_of(path) for path in run.merge_files}
    for step in iter_steps(run, selection.asked):
        asked = sorted(filter(selection.has, step.components), key=_order)
        if facts is not None:
            facts.add(step, asked)
        tasks = [_task(component, seen) for component in asked]
        yield StepPlan(run.name, step.step, tuple(tasks), step.skips, step.notes, step.breaks)


def _order(component: Component) -> tuple[int, bool, int, int, int, str]:
    """Key of the order of the table: layers ascending, what is outside of them last."""
    return (
        COMPONENTS.index(component.kind),
        component.layer is None,
        component.layer or 0,
        ROLES.index(component.role),
        component.expert or 0,
        component.name,
    )


def _task(component: Component, seen: dict[str, State | None]) -> Task:
    """What to do for a component; ``seen`` are the files of the run so far."""
    paths = dict.fromkeys(path for one in component.recipe.tensors() for path in one.paths)
    files = []
    for path in paths:
        if path not in seen:
            seen[path] = state_of(path)
        files.append((path, seen[path]))
    return Task(component, _key(component), tuple(files))


def _key(component: Component) -> str:
    """Digest of the recipe with the fingerprint of each file in the place of its path."""
    recipe = repr(component.recipe)
    for path in {path for tensor in component.recipe.tensors() for path in tensor.paths}:
        recipe = recipe.replace(repr(path), _fingerprint(path))
    window = (component.since, component.restarts, component.window)
    text = f"{store.VERSION} {component.kind} {component.heads} {window} {recipe}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _fingerprint(path: str) -> str:
    try:
        return fingerprint(path)
    except RankscopeError:
        return "unreadable"  # the worker that tries to read it says why


def _check(kind: str, given: Collection[str], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise RankscopeError(f"{name!r} is no {kind}: known are {', '.join(known)}")
