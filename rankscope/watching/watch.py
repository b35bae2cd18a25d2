"""`watch`: analyse each checkpoint as it appears."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rankscope.addresses import shown
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.engines import EngineName, OpenEngine, engine_of
from rankscope.analysis.plan import count_steps
from rankscope.analysis.request import Selection, Windows
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.file_states import FileStates, states_of_files
from rankscope.checkpoints.survey import Survey
from rankscope.errors import (
    RankscopeError,
    RankscopeWarning,
    WrongSettingError,
    require_folder,
)
from rankscope.pipeline.call_results import sweep_results
from rankscope.pipeline.calls import Paths, listed_paths
from rankscope.pipeline.choices import Layers, Names, Steps
from rankscope.results.measure import Row
from rankscope.results.step_rows import iter_rows
from rankscope.watching.kept_rows import (
    IDENTIFYING,
    digest_of_rows,
    iter_table,
    parts_by_step,
    with_kept_rows,
)
from rankscope.watching.readiness import Readiness, files_of, has_ended

POLL = 10.0  # seconds


@dataclass(frozen=True)
class WatchedStep:
    """A step that was just measured, or measured anew because its files changed.

    Attributes
    ----------
    rows
        Its rows of the table, which is written by the time this is seen.
    is_last
        Whether no other step of the same look follows: the time to redraw what takes long.
    """

    run: str
    step: int
    unit: str
    rows: tuple[Row, ...] = field(repr=False)
    is_last: bool = True


@dataclass
class Watch:
    """Runs that are watched; iterating over it looks for checkpoints until the end.

    Attributes
    ----------
    analysis
        What was measured so far; None as long as there was nothing.
    """

    paths: list[str | Path]
    out: Path
    selection: Selection
    look: Callable[[Iterable[str | Path]], Survey]
    engine: Callable[[], OpenEngine]
    poll: float
    idle: float
    analysis: Analysis | None = None

    def __iter__(self) -> Iterator[WatchedStep]:
        sweep_results(self.out)
        readiness, news = Readiness(self.poll), time.monotonic()
        done: tuple[tuple[str, FileStates], ...] = ()
        known: dict[tuple[str, int], bytes] = {}
        with suppress(RankscopeError):  # a damaged table is written again
            known |= {key: digest_of_rows(rows) for key, rows in iter_table(self.out, IDENTIFYING)}
        while True:
            found = self._found()
            ready, are_pending = _complete(found, readiness)
            state = self._state(ready)
            if state and state != done:
                self._analyse(ready, {run.name: run.steps for run in found.runs})
                done = state  # from before: what changed meanwhile is seen at the next look
                for seen in self._unknown(ready, known):
                    yield seen
                    news = time.monotonic()
            if are_pending:
                news = time.monotonic()
            elif self._have_ended(found) or time.monotonic() - news >= self.idle:
                return
            time.sleep(self.poll)

    def _found(self) -> Survey:
        """What is there now; a path without a checkpoint is named once."""
        there = []
        for path in self.paths:
            try:
                self.look([path])
                there.append(path)
            except RankscopeError as error:
                # The filter of warnings shows each only once.
                message = f"{error}: waiting for its first checkpoint"
                warnings.warn(RankscopeWarning(message), stacklevel=3)
        return self.look(there)

    def _analyse(self, ready: Survey, there: Mapping[str, Sequence[int]]) -> None:
        """Measure what is new, and write the table."""
        self.analysis = analyze_runs(
            ready,
            self.selection,
            out=self.out,
            engine=self.engine(),
            revised=lambda analysis: with_kept_rows(analysis, self.out, there),
        )

    def _unknown(self, ready: Survey, known: dict[tuple[str, int], bytes]) -> Iterator[WatchedStep]:
        """The steps with other values than those known, which are brought up to date."""
        units = {run.name: run.unit for run in ready.runs}
        parts = () if self.analysis is None else self.analysis.parts
        new = {}
        for key, part in parts_by_step(parts).items():
            digest = digest_of_rows(part.load().columns.rows(IDENTIFYING))
            if known.get(key) != digest:
                known[key], new[key] = digest, part
        for at, ((run, step), part) in enumerate(new.items(), start=1):
            yield WatchedStep(run, step, units[run], tuple(iter_rows([part])), at == len(new))

    def _state(self, ready: Survey) -> tuple[tuple[str, FileStates], ...]:
        """The files of everything that can be measured; empty if that is nothing."""
        wanted = [run for run in ready.runs if count_steps(run, self.selection)]
        return tuple(
            (
                run.name,
                (
                    *(file for one in run for file in files_of(one)),
                    *states_of_files(run.merge_files),
                ),
            )
            for run in wanted
        )

    def _have_ended(self, found: Survey) -> bool:
        """Whether each path is one run, and all of these have ended."""
        folders = {Path(shown(run.path)).resolve() for run in found.runs}
        asked = {Path(shown(path)).resolve() for path in self.paths}
        return folders == asked and all(map(has_ended, found.runs))


def watch(
    paths: Paths,
    *,
    out: str | Path = "rankscope-results",
    poll: float = POLL,
    idle: float | None = None,
    components: Names | None = None,
    roles: Names | None = None,
    layers: Layers | None = None,
    steps: Steps | None = None,
    windows: Windows = "steps",
    jobs: int | None = None,
    engine: EngineName = "local",
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Watch:
    """Analyse each checkpoint of the runs at ``paths`` as it appears.

    The table in ``out`` is rewritten after each look that finds something new, before its steps are
    yielded; the final one is the one that `analyze` writes. Whatever ``out`` already holds is
    neither computed again nor yielded. A checkpoint that the training removes keeps its rows.

    It ends when the runs of rankscope's trainer have ended, if each path is the folder of one run.
    Runs of other programs, and trees of runs, which may get another, are watched until the caller
    stops or nothing new has appeared for ``idle`` minutes.

    Parameters
    ----------
    paths
        Folders, as for `analyze`. They need not exist yet.
    out
        Folder for the results.
    poll
        Seconds between two looks, and also how long the files of a checkpoint must stay unchanged
        before it counts as complete; checkpoints of rankscope's trainer are complete when they
        appear.
    idle
        End when nothing new has appeared for this many minutes; by default never.
    components, roles, layers, steps, windows, jobs, engine, layout, family, trust_pickle, base
        As for `analyze`.

    Returns
    -------
    An iterable of the steps that were not in the table yet, each as soon as it is added. It looks
    for checkpoints only while it is iterated over.

    Raises
    ------
    WrongSettingError
        If a setting is unknown or out of its range.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    >>> import rankscope as rs
    >>> watched = rs.watch("ckpts/relora", out="new", components="weight", poll=0.05, idle=0.01)
    >>> for seen in watched:
    ...     print(seen.run, seen.step, len(seen.rows))
    relora 0 14
    relora 10 14
    relora 20 14
    relora 30 14
    """
    for name, value in (("poll", poll), ("idle", idle)):
        if value is not None and not value > 0:
            raise WrongSettingError(f"`{name}` is {value}: give a number above 0")
    selection = Selection.of(
        components=components, roles=roles, layers=layers, steps=steps, windows=windows
    )
    look = partial(survey, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    look([])  # for wrong settings
    engine_of(engine, jobs)
    require_folder(out)
    return Watch(
        paths=listed_paths(paths),
        out=Path(out),
        selection=selection,
        look=look,
        engine=lambda: engine_of(engine, jobs),
        poll=poll,
        idle=math.inf if idle is None else 60 * idle,
    )


def _complete(found: Survey, readiness: Readiness) -> tuple[Survey, bool]:
    """The survey of the checkpoints that are complete, and whether there are others."""
    now = time.monotonic()
    runs, pending = [], list[Path]()
    for run in found.runs:
        ready = [one for one in run if readiness.is_ready(one, now)]
        pending += [Path(shown(one.path)) for one in run if one not in ready]
        if ready:
            runs.append(replace(run, checkpoints=tuple(ready)))

    def is_settled(path: str) -> bool:
        return not any(Path(path).is_relative_to(one) for one in pending)

    skips, notes = (
        tuple(one for one in some if is_settled(one.path)) for some in (found.skips, found.notes)
    )
    return replace(found, runs=tuple(runs), skips=skips, notes=notes), bool(pending)
