"""The steps of a run that need not be planned again: nothing that their rows depend on has changed.

What is measured at a step depends on the files of this step and of those before it. The trail of a
step is a digest of the states of all of these, and it is kept with the rows. Where it is the same
again, so are the rows, and no file has to be opened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rankscope.addresses import is_stand_in
from rankscope.analysis.history import Begin, Step
from rankscope.analysis.reasons import Facts
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import State, state_of, states_below
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.steps import step_in_name
from rankscope.pipeline.seen_files import (
    States,
    are_old,
    configs_above,
    files_in,
    states_of_package,
)
from rankscope.results.columns import ROWS_FOLDER, SPECTRA_FOLDER
from rankscope.results.spectra_store import VERSION, store_path
from rankscope.results.step_rows import KeptRows, Spool, read_step_rows

if TYPE_CHECKING:
    from rankscope.analysis.request import Selection


_Unchanged: TypeAlias = "tuple[int, KeptRows, dict[str, State] | None]"


class Trail:
    """Digests of the steps of a run so far; ends where something may change without a trace."""

    def __init__(self, run: Run, selection: Selection) -> None:
        first = run.checkpoints[0]
        above = configs_above(first.path)
        about = VERSION, run.name, str(run.path), run.unit, first.options, selection
        text = repr((about, sorted(above.items()), sorted(states_of_package().items())))
        self._digest = hashlib.blake2b(text.encode(), digest_size=16)
        self._at = time.time_ns()
        self._paths: set[Path] = set()
        self._checkpoints = {one.step: one for one in run.checkpoints}
        self._merges = {path: step_in_name(path.stem) or 0 for path in run.merge_files}
        alike = all(one.options == first.options for one in run.checkpoints)
        self._is_open = alike and are_old(above, self._at)

    @property
    def digest(self) -> str:
        """Digest of the steps so far; empty if it has ended."""
        return self._digest.hexdigest() if self._is_open else ""

    def after(self, step: int, states: Mapping[str, State] | None) -> None:
        """Add a step, whose checkpoint's files have these states; None if it cannot be read."""
        checkpoint = self._checkpoints.get(step)
        merged = {path for path, at in self._merges.items() if at <= step} - self._paths
        found: States = {str(path): state_of(path) for path in sorted(merged)}
        if checkpoint is not None:
            self._is_open &= states is not None
            found.update(states or {})
            self._paths.add(checkpoint.path)
            self._digest.update(repr((checkpoint.path, checkpoint.layout)).encode())
        self._paths |= merged
        self._is_open &= are_old(found, self._at)
        self._digest.update(repr((step, sorted(found.items()))).encode())

    def end(self) -> None:
        """Trust no later step."""
        self._is_open = False

    def beside(self, files: Iterable[str]) -> States:
        """All files beside these that belong to no checkpoint or merge so far."""
        files = {*files}  # a file may have a matrix for every task
        self._is_open &= not any(map(is_stand_in, files))
        folders = {Path(path).parent for path in files}
        strange = (one for one in folders if not self._paths & {one, *one.parents})
        own = {path.parent for path in self._paths}
        found = {p: s for one in strange if one not in own for p, s in files_in(str(one)).items()}
        self._is_open &= are_old(found, self._at)
        return found


@dataclass(frozen=True)
class Past:
    """The first steps of a run, if they need not be planned again.

    Attributes
    ----------
    steps
        Their rows.
    begin
        Where the walk through the run continues; None to begin with its first step.
    trail
        Their trail, to be continued; None where nothing can be trusted.
    """

    steps: tuple[tuple[int, KeptRows], ...] = ()
    begin: Begin | None = None
    trail: Trail | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Fields of the `Facts` so far."""
        stored = dict(self.steps[-1][1].about["facts"]) if self.steps else {}
        return {name: set(v) if isinstance(v, list) else v for name, v in stored.items()}


def past_of(run: Run, selection: Selection, spool: Spool | None, *, recheck: bool) -> Past:
    """The steps at the beginning of a run whose kept rows hold; none to ``recheck`` them."""
    is_known = selection.since is None and selection.windows == "steps"
    is_known &= not is_stand_in(run.path)  # whose state here says nothing of what lies elsewhere
    if spool is None or not run.checkpoints or not is_known:
        return Past()
    selection = replace(selection, subspaces=None, against=())
    unchanged, reached = ([], None) if recheck else _unchanged(run, selection, spool)
    while unchanged and not unchanged[-1][1].about["replay"]:
        unchanged.pop()
        reached = None
    trail = reached or _trail_of(run, selection, unchanged)
    steps = tuple((step, stored) for step, stored, _ in unchanged)
    if not steps:
        return Past(trail=trail)
    step, last = steps[-1]
    said = {(n["tensor"], n["message"]) for _, one in steps for n in one.about["notes"]}
    return Past(steps, Begin(step, tuple(last.about["replay"]), frozenset(said)), trail)


def _trail_of(run: Run, selection: Selection, steps: Iterable[_Unchanged]) -> Trail:
    trail = Trail(run, selection)
    for step, _, states in steps:
        trail.after(step, states)
    return trail


def _unchanged(
    run: Run, selection: Selection, spool: Spool
) -> tuple[list[_Unchanged], Trail | None]:
    """The steps that have not changed, and their trail; None if it has gone on to one that has."""
    trail, found = Trail(run, selection), list[_Unchanged]()
    checkpoints = {one.step: one for one in run.checkpoints}
    merged = {step_in_name(path.stem) or 0 for path in run.merge_files}
    for step in sorted(filter(selection.has_step, checkpoints.keys() | merged)):
        stored = read_step_rows(store_path(spool.folder / ROWS_FOLDER, run.name, step))
        if stored is None:
            return found, trail
        states = states_below(checkpoints[step].path) if step in checkpoints else None
        about = stored.about
        trail.after(step, states)
        if not trail.digest or about["trail"] != trail.digest:
            return found, None
        folders = {str(Path(path).parent) for path in about["beside"]}
        beside = {path: state for one in folders for path, state in files_in(one).items()}
        spectra = state_of(store_path(spool.folder / SPECTRA_FOLDER, run.name, step))
        if _listed(beside) != about["beside"] or spectra != as_state(about["spectra"]):
            return found, None
        found.append((step, spool.add(stored), states))
    return found, trail


def noted(trail: Trail, step: Step, facts: Facts, *, files: Iterable[str]) -> dict[str, Any]:
    """What is kept with the rows of a step that was just planned.

    Parameters
    ----------
    facts
        Facts about the run so far.
    files
        Where the tensors of the step are.
    """
    if facts.lacks_base:
        trail.end()
    trail.after(step.step, None if step.contents is None else step.contents.states)
    beside = trail.beside(files)
    return {
        "trail": trail.digest,
        "beside": _listed(beside),
        "replay": step.replay,
        "facts": {n: sorted(v) if isinstance(v, set) else v for n, v in asdict(facts).items()},
    }


def _listed(states: States) -> dict[str, list[int] | None]:
    return {path: None if state is None else list(state) for path, state in states.items()}


def as_state(listed: Iterable[int] | None) -> tuple[int, ...] | None:
    """The state of a file as it was kept."""
    return None if listed is None else tuple(listed)


def as_skips(lines: Iterable[Mapping[str, str]]) -> tuple[Skip, ...]:
    """Skips or notes as they were kept with the rows of a step."""
    return tuple(Skip(**line) for line in lines)
