"""What to decompose: the matrices of every run, step by step, as tasks for the workers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from rankscope.analysis.cycles import ends_cycle, merged_before, no_cycles, origins_of
from rankscope.checkpoints.contents import Contents, Parameter, Skip, restarts_between
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.merges import Merge, read_merge
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.step_range import StepRange, check_range, in_range
from rankscope.checkpoints.steps import step_in_name
from rankscope.checkpoints.training_log import log_file
from rankscope.components.selection import (
    AT_CHECKPOINTS,
    AT_MERGES,
    COMPONENTS,
    ON_REQUEST,
    Component,
    Moment,
)
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError
from rankscope.spectra import store

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
    windows
        ``steps``: updates from each checkpoint to the next. ``cycles``: of a run that recorded
        merges, from one merge to the next only; whole cycles are comparable, parts are not.
    """

    components: tuple[str, ...] = tuple(c for c in COMPONENTS if c not in ON_REQUEST)
    roles: tuple[str, ...] = tuple(r for r in ROLES if r not in OUTSIDE_LAYERS)
    layers: frozenset[int] | None = None
    steps: StepRange | None = None
    windows: Windows = "steps"

    def __post_init__(self) -> None:
        _check("kind of window", (self.windows,), get_args(Windows))
        _check("component", self.components, COMPONENTS)
        _check("role", self.roles, ROLES)
        check_range(self.steps)

    @classmethod
    def of(
        cls,
        *,
        components: Iterable[str] | None = None,
        roles: Iterable[str] | None = None,
        layers: Iterable[int] | None = None,
        steps: StepRange | None = None,
        windows: Windows = "steps",
    ) -> Selection:
        """Selection in which None stands for the default."""
        default = cls()
        return cls(
            default.components if components is None else tuple(components),
            default.roles if roles is None else tuple(roles),
            None if layers is None else frozenset(layers),
            steps,
            windows,
        )

    def has_step(self, step: int) -> bool:
        """Whether this step is asked for."""
        return in_range(step, self.steps)

    def has(self, component: Component) -> bool:
        """Whether this matrix is asked for."""
        in_layers = self.layers is None or component.layer in self.layers
        return component.role in self.roles and in_layers


@dataclass(frozen=True)
class Task:
    """One source to decompose, and the digest of all that its spectra depend on."""

    component: Component
    key: str


@dataclass(frozen=True)
class StepPlan:
    """Everything that is asked of one run at one step."""

    run: str
    step: int
    tasks: tuple[Task, ...]
    skips: tuple[Skip, ...] = field(default=())


@dataclass(frozen=True)
class Seen:
    """A checkpoint that later ones are measured from; ``restarts`` are those since the first."""

    step: int
    contents: Contents
    restarts: int = 0


def count_steps(run: Run, selection: Selection) -> int:
    """Number of steps that `plan_run` plans."""
    merged = (step_in_name(path.stem) for path in run.merge_files)
    steps = {*run.steps, *(step for step in merged if step is not None)}
    return sum(map(selection.has_step, steps))


class Plans:
    """The plans of all runs, once; afterwards `key` tells what the results depend on.

    The key is of the plans that were handed out, and not of the files as they are later: what
    changed during an analysis is not taken for analysed.
    """

    def __init__(self, runs: Sequence[Run], selection: Selection) -> None:
        self._runs, self._selection = runs, selection
        self._digest = hashlib.blake2b(repr((store.VERSION, selection)).encode(), digest_size=12)

    def __iter__(self) -> Iterator[StepPlan]:
        for run in self._runs:
            log = log_file(run)
            self._digest.update(repr((run.path, log and _fingerprint(str(log)))).encode())
            for plan in plan_run(run, self._selection):
                keys = [task.key for task in plan.tasks]
                self._digest.update(repr((plan.run, plan.step, keys, plan.skips)).encode())
                yield plan

    @property
    def key(self) -> str:
        """Digest of the plans so far."""
        return self._digest.hexdigest()


def plan_run(run: Run, selection: Selection) -> Iterator[StepPlan]:
    """Plan a run, step by step in ascending order; reads headers only.

    An update is measured from the previous checkpoint that is asked for. A checkpoint that cannot
    be read is reported as a skip, and the next update spans it.
    """
    merges, skips = _read_merges(run)
    origins = origins_of(run, merges)
    checkpoints = {c.step: c for c in run.checkpoints if selection.has_step(c.step)}
    whole = selection.windows == "cycles"
    skips += no_cycles(run, merges, checkpoints, origins) if whole else ()
    merged_steps = {m.step for m in merges if selection.has_step(m.step)}
    first: Seen | None = None
    previous: Seen | None = None
    boundary: Seen | None = None
    for step in sorted(checkpoints.keys() | merged_steps):
        components: list[Component] = []
        found = list(skips) if previous is None else []
        skips = ()
        contents = _contents(checkpoints[step], found) if step in checkpoints else None
        if contents is not None:
            now = _seen(step, contents, previous)
            is_end = not whole or ends_cycle(now.contents, step, merges)
            earlier = boundary if is_end else None
            components += _at_checkpoint(selection, now, earlier, first, merges, origins)
            previous, boundary = now, now if is_end else boundary
            first = first or now
        if step in merged_steps:
            so_far = [merge for merge in merges if merge.step <= step]
            for name in [name for name in AT_MERGES if name in selection.components]:
                components += AT_MERGES[name](so_far)
        asked = sorted(filter(selection.has, components), key=_order)
        tasks = [Task(component, _key(component)) for component in asked]
        yield StepPlan(run.name, step, tuple(tasks), tuple(found))


def _seen(step: int, contents: Contents, previous: Seen | None) -> Seen:
    if previous is None:
        return Seen(step, contents)
    restarts = restarts_between(previous.contents, contents)
    return Seen(step, contents, previous.restarts + restarts)


def _at_checkpoint(
    selection: Selection,
    now: Seen,
    previous: Seen | None,
    first: Seen | None,
    merges: tuple[Merge, ...],
    origins: Mapping[str, Parameter],
) -> list[Component]:
    """Matrices of a checkpoint; its state is that before a merge of the same step."""

    def window(earlier: Seen | None) -> Window | None:
        if earlier is None:
            return None
        is_counted = now.contents.restarts is not None
        counted = now.restarts - earlier.restarts if is_counted else None
        adapted = earlier.contents.adapted, now.contents.adapted
        return Window(earlier.step, now.step, merges, counted, adapted)

    moment = Moment(
        now.contents,
        None if previous is None else previous.contents,
        None if first is None else first.contents,
        window(previous),
        window(first),
        merged_before(now.step, merges, origins),
    )
    names = [name for name in AT_CHECKPOINTS if name in selection.components]
    return [component for name in names for component in AT_CHECKPOINTS[name](moment)]


def _read_merges(run: Run) -> tuple[tuple[Merge, ...], tuple[Skip, ...]]:
    """Merges of a run. After one that cannot be read, sums of merges are not known any more."""
    merges: list[Merge] = []
    for path in run.merge_files:
        try:
            merges.append(read_merge(path))
        except RankscopeError as error:
            return tuple(merges), (_skip(error, path),)
    return tuple(merges), ()


def _contents(checkpoint: Checkpoint, skips: list[Skip]) -> Contents | None:
    try:
        contents = checkpoint.read()
    except RankscopeError as error:
        skips.append(_skip(error, checkpoint.path))
        return None
    skips += contents.skips
    if not contents.parameters:
        skips.append(Skip(str(checkpoint.path), "", "no-matrices", "holds no weight matrix"))
    return contents


def _skip(error: RankscopeError, path: Path) -> Skip:
    return Skip(error.path or str(path), error.tensor or "", error.reason, error.message)


def _order(component: Component) -> tuple[int, bool, int, int, int, str]:
    """Key of the order of the table: layers ascending, what is outside of them last."""
    return (
        COMPONENTS.index(component.component),
        component.layer is None,
        component.layer or 0,
        ROLES.index(component.role),
        component.expert or 0,
        component.name,
    )


def _key(component: Component) -> str:
    """Digest of the recipe with the fingerprint of each file in the place of its path."""
    recipe = repr(component.source)
    for path in {path for tensor in component.source.tensors() for path in tensor.paths}:
        recipe = recipe.replace(repr(path), _fingerprint(path))
    window = (component.since, component.restarts, component.window)
    text = f"{store.VERSION} {component.component} {component.heads} {window} {recipe}"
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
