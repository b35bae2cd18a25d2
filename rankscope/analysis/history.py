"""A run step by step: what a checkpoint holds, where its changes begin, where the series breaks.

An update is measured from the last checkpoint that holds the matrix: it spans checkpoints that
cannot be read or lack the tensor. Nothing is measured across a break
(`rankscope.checkpoints.continuity`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rankscope.analysis.origin import Seen, origin_of
from rankscope.analysis.whole_cycles import ends_cycle, no_cycles
from rankscope.checkpoints.before_merges import merged_before, origins_of
from rankscope.checkpoints.contents import Contents, Parameter, Skip, restarts_between
from rankscope.checkpoints.continuity import (
    Trace,
    difference,
    difference_of_traces,
    gaps,
    same_names,
    trace_of,
)
from rankscope.checkpoints.merges import Merges, read_merges
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.components.component import Component, Moment
from rankscope.components.selection import AT_CHECKPOINTS, AT_MERGES
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError
from rankscope.pipeline.execution import skip_of

# Between neighbours; cumulative updates share one earlier checkpoint.
BETWEEN = ("update", "ov_update", "qk_update")


@dataclass(frozen=True)
class Asked:
    """What is wanted from a run.

    Attributes
    ----------
    components
        Their names.
    has_step, has
        Whether a step is wanted, and whether a matrix is.
    since
        Where cumulative updates begin; None to begin at the base model or the first step.
    whole_cycles
        Whether updates are to span only whole cycles, in a run that has cycles.
    """

    components: tuple[str, ...]
    has_step: Callable[[int], bool]
    has: Callable[[Component | Parameter], bool]
    since: Checkpoint | None = None
    whole_cycles: bool = False


@dataclass(frozen=True)
class Begin:
    """Where to continue in a run whose first steps are known.

    Attributes
    ----------
    step
        The last of the known steps.
    replay
        As in `Step`.
    said
        The notes on these steps: the tensor and message of each.
    """

    step: int
    replay: tuple[int, ...]
    said: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Step:
    """What one step holds.

    Attributes
    ----------
    contents
        None where there is no checkpoint of the step, or none that can be read.
    components
        Matrices of the wanted components, whether or not their layer and role are wanted.
    breaks
        Whether it does not continue the previous steps.
    replay
        The one or two checkpoints that determine all that later steps depend on; none if two are
        not enough.
    """

    step: int
    contents: Contents | None = None
    components: tuple[Component, ...] = ()
    skips: tuple[Skip, ...] = ()
    notes: tuple[Skip, ...] = ()
    breaks: bool = False
    replay: tuple[int, ...] = ()


def iter_steps(run: Run, asked: Asked, begin: Begin | None = None) -> Iterator[Step]:
    """Go through the wanted steps of a run, ascending; reads headers only.

    A checkpoint that cannot be read is reported as a skip.

    Parameters
    ----------
    begin
        Leaves out the steps up to this one.
    """
    merges = read_merges(run.merge_files)
    skips = merges.skips
    checkpoints = {c.step: c for c in run.checkpoints if asked.has_step(c.step)}
    merged_steps = {m.step for m in merges.read if asked.has_step(m.step)}
    walk = _Walk(run, asked, merges, origins_of(run, merges))
    if asked.whole_cycles:
        skips += no_cycles(run, merges, checkpoints, walk.origins)
    if begin is not None:
        walk.replayed([checkpoints[step] for step in begin.replay], begin.said)
    for step in sorted(checkpoints.keys() | merged_steps):
        if begin is not None and step <= begin.step:
            continue
        found = walk.at(checkpoints[step]) if step in checkpoints else Step(step)
        components = [*found.components]
        if "base" in asked.components:  # which may stand for a weight too
            components = list(dict.fromkeys(components))
        if step in merged_steps:
            so_far = [merge for merge in merges.read if merge.step <= step]
            for name in [name for name in AT_MERGES if name in asked.components]:
                components += AT_MERGES[name](so_far, walk.last or _first_readable(run))
        yield replace(
            found,
            components=tuple(components),
            skips=(*skips, *found.skips),
            replay=walk.replay,
        )
        skips = ()


def _first_readable(run: Run) -> Contents | None:
    """A checkpoint that identifies merges before all those that are analysed."""
    for checkpoint in run.checkpoints:
        with suppress(RankscopeError):
            return checkpoint.read()
    return None


@dataclass
class _Part:
    """A series since its last break.

    Attributes
    ----------
    origin
        Where its cumulative updates begin; None where that is not known.
    last, trace
        The previous checkpoint, and what is stored next to its weights.
    second_last
        The checkpoint before that; None if there is none.
    held
        The last checkpoint that holds a matrix, by the matrix's name and whether its weight is
        there: an adapter alone and a weight are not measured from each other.
    held_before
        The last checkpoint before that one that holds it.
    bare
        Length of the prefix that the names of some checkpoints lack.
    is_renamed
        Whether some checkpoint has been read under names that differ from its own.
    """

    origin: Seen | None
    last: Seen
    trace: Trace
    held: dict[tuple[str, bool], Seen] = field(default_factory=dict)
    held_before: dict[tuple[str, bool], Seen] = field(default_factory=dict)
    bare: int = 0
    is_renamed: bool = False
    second_last: Seen | None = None

    def take(self, now: Seen, trace: Trace, *, is_start: bool) -> None:
        """Make this the previous checkpoint, and a start of updates if it may be one."""
        self.second_last = None if self.last is now else self.last
        self.last, self.trace = now, trace
        if is_start:
            holds = set(map(_identity, now.contents.parameters.values()))
            self.held_before |= {one: seen for one, seen in self.held.items() if one in holds}
            self.held |= dict.fromkeys(holds, now)


@dataclass
class _Walk:
    """State between two checkpoints of a run, and what was reported about the current one."""

    run: Run
    asked: Asked
    merges: Merges
    origins: Mapping[str, Parameter] = field(default_factory=dict)
    part: _Part | None = None
    skips: list[Skip] = field(default_factory=list)
    notes: list[Skip] = field(default_factory=list)
    said: set[tuple[str, str]] = field(default_factory=set)

    @property
    def last(self) -> Contents | None:
        """The previous checkpoint; None where the series begins or has just broken."""
        return None if self.part is None else self.part.last.contents

    @property
    def replay(self) -> tuple[int, ...]:
        """The checkpoints after which another walk would continue like this one; may be empty.

        This requires that every matrix so far is in the last checkpoint, and those that were there
        before are in the one before it.
        """
        part, asked = self.part, self.asked
        if part is None or "cumulative_update" in asked.components or asked.whole_cycles:
            return ()
        is_all = all(seen is part.last for seen in part.held.values())
        is_all &= all(seen is part.second_last for seen in part.held_before.values())
        if not is_all or part.is_renamed or self.merges.skips:
            return ()
        return tuple(seen.step for seen in (part.second_last, part.last) if seen is not None)

    def replayed(self, checkpoints: Iterable[Checkpoint], said: Iterable[tuple[str, str]]) -> None:
        """Bring this walk to the state of another one, which had these notes."""
        for checkpoint in checkpoints:
            self.at(checkpoint)
        self.said |= {*said}

    def at(self, checkpoint: Checkpoint) -> Step:
        """Read a checkpoint, and find what to measure in it."""
        self.skips, self.notes = [], []
        contents = self._read(checkpoint)
        if contents is None:
            return Step(checkpoint.step, skips=tuple(self.skips))
        before, components = self.part, list[Component]()
        if contents.parameters:
            trace = trace_of(checkpoint.path, within=checkpoint.options.within)
            now = self._continued(checkpoint, contents, trace) or Seen(checkpoint.step, contents)
            if self.part is None:
                self.part = _Part(self._origin(now), now, trace)
            is_end = not self.asked.whole_cycles or ends_cycle(now.contents, now.step, self.merges)
            components += self._components(now, self.part, is_end=is_end)
            self.part.take(now, trace, is_start=is_end)
            contents = now.contents
        elif "gradient" in self.asked.components:
            components += AT_CHECKPOINTS["gradient"](Moment(contents))
        breaks = before is not None and self.part is not before
        said = tuple(self.skips), tuple(self._new_notes())
        return Step(checkpoint.step, contents, tuple(components), *said, breaks)

    def _read(self, checkpoint: Checkpoint) -> Contents | None:
        try:
            contents = checkpoint.read()
        except RankscopeError as error:
            self.skips.append(skip_of(error, checkpoint.path))
            return None
        self.skips += contents.skips
        self.notes += contents.notes
        if not contents.parameters:
            message = "holds no weight matrix"
            self.skips.append(Skip(str(checkpoint.path), "", "no-matrices", message))
        return contents

    def _continued(self, checkpoint: Checkpoint, contents: Contents, trace: Trace) -> Seen | None:
        """The checkpoint under the names of the series; None where a new part begins here."""
        part, path = self.part, str(checkpoint.path)
        if part is None:
            return None
        earlier = part.last.contents
        apart = difference_of_traces(part.trace, trace)
        same = None if apart else same_names(earlier, contents, bare=part.bare)
        if same is not None:
            contents, part.bare = same
            part.is_renamed = True
            message = "its names differ from earlier ones by a prefix: taken for the same matrices"
            self.notes.append(Skip(path, "", "prefix", message))
        apart = apart or difference(earlier, contents)
        now, last = (f"{self.run.unit} {step}" for step in (checkpoint.step, part.last.step))
        if apart:
            message = (
                f"{now} does not continue {last}: {apart}. No update is measured across this break"
            )
            self.skips.append(Skip(path, "", "break", message))
            self.part = None
            return None
        self.skips += gaps(
            earlier,
            contents,
            held={name for name, _ in part.held},
            path=path,
            steps=(last, now),
            has=self.asked.has,
        )
        restarts = part.last.restarts + restarts_between(earlier, contents)
        return Seen(checkpoint.step, contents, restarts)

    def _origin(self, first: Seen) -> Seen | None:
        """Start of the cumulative updates in the part that begins here."""
        if "cumulative_update" not in self.asked.components:
            return None
        try:
            origin = origin_of(self.run, first, self.asked.since)
        except RankscopeError as error:
            self.skips.append(skip_of(error, self.run.path))
            return None
        if origin is not first and self.asked.since is None:
            message = f"its cumulative updates begin at its base model, {first.contents.base}"
            self.notes.append(Skip(str(self.run.path), "", "origin", message))
        return origin

    def _components(self, now: Seen, part: _Part, *, is_end: bool) -> Iterator[Component]:
        """Every wanted component of a checkpoint; updates only where one may end."""
        origin = part.origin if part.origin and part.origin.step < now.step else None
        whole = self._moment(now, None, origin)
        for name in [name for name in AT_CHECKPOINTS if name in self.asked.components]:
            each = self._since_each(now, part) if is_end else ()
            for moment in each if name in BETWEEN else (whole,):
                yield from AT_CHECKPOINTS[name](moment)

    def _since_each(self, now: Seen, part: _Part) -> Iterator[Moment]:
        """The checkpoint's matrices, grouped by the last two checkpoints that held them."""
        groups: dict[tuple[int, int | None], tuple[Seen, Seen | None, dict[str, Parameter]]] = {}
        for parameter in now.contents.parameters.values():
            identity = _identity(parameter)
            earlier, before = part.held.get(identity), part.held_before.get(identity)
            if earlier is not None:
                key = earlier.step, None if before is None else before.step
                groups.setdefault(key, (earlier, before, {}))[2][parameter.name] = parameter
        for earlier, before, parameters in groups.values():
            contents = replace(now.contents, parameters=parameters)
            moment = self._moment(replace(now, contents=contents), earlier, None)
            if before is not None:
                moment = replace(
                    moment,
                    second_last=before.contents,
                    before_previous=self._window(before, earlier),
                )
            yield moment

    def _moment(self, now: Seen, previous: Seen | None, origin: Seen | None) -> Moment:
        """A checkpoint with those where its changes begin; it precedes any merge at its step."""
        return Moment(
            now.contents,
            None if previous is None else previous.contents,
            None if origin is None else origin.contents,
            None if previous is None else self._window(previous, now),
            None if origin is None else self._window(origin, now),
            origins=merged_before(now.step, self.merges, self.origins),
        )

    def _window(self, earlier: Seen, now: Seen) -> Window:
        is_counted = now.contents.restarts is not None
        counted = now.restarts - earlier.restarts if is_counted else None
        adapted = earlier.contents.adapted, now.contents.adapted
        return Window(earlier.step, now.step, self.merges, counted, adapted)

    def _new_notes(self) -> Iterator[Skip]:
        """The notes that no earlier checkpoint of the run had."""
        for note in self.notes:
            if (note.tensor, note.message) not in self.said:
                self.said.add((note.tensor, note.message))
                yield note


def _identity(parameter: Parameter) -> tuple[str, bool]:
    return parameter.name, parameter.tensor is not None
