"""What is recorded of a monitored run: spectra in the store, and the table that they make."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.jobs import Outcome
from rankscope.analysis.results_folder import write_results
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.merges import Merges
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.steps import step_in_name
from rankscope.components.component import Component
from rankscope.components.recipes import Difference
from rankscope.components.windows import Window
from rankscope.folder_lock import locked
from rankscope.monitoring.messages import EndOfStep, Opening
from rankscope.monitoring.run_rows import RunRows, rows_of_others
from rankscope.pipeline.call_results import sweep_results
from rankscope.pipeline.engine import Failure
from rankscope.results import spectra_store
from rankscope.results.columns import ANALYSIS_RECORD, SPECTRA_FOLDER
from rankscope.results.measure import Row
from rankscope.results.record import read_record
from rankscope.results.run_folders import rename_older
from rankscope.results.spectra_store import Entry
from rankscope.results.step_rows import Spool, row_of
from rankscope.watching.mirrors import open_mirrors

PATIENCE = 5.0  # seconds to wait for another recorder
SOURCE = "monitor"  # where the steps of a monitored run were read
Steps = dict[int, dict[str, Any]]


def recorded(out: Path, run: str) -> Mapping[str, Any]:
    """What the record in a results folder says about a run; empty if it says nothing."""
    runs = read_record(out / ANALYSIS_RECORD).get("runs", [])
    return next((one for one in runs if one.get("name") == run), {})


class RecordedRun:
    """A run in a results folder, continued from what is there.

    Other runs in the folder keep their rows. Only one process at a time may hold one.

    Attributes
    ----------
    restarts
        Steps after which adapters were merged and begun anew, and whether in float64.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening, self._out = opening, Path(opening.out)
        self._open = ExitStack()
        # What was killed with its training may still write its table.
        self._open.enter_context(
            locked(self._out, kind="monitor", who="monitor", patience=PATIENCE)
        )
        self._store = SpectraFiles(self._out)
        sweep_results(self._out)
        rename_older(self._out, [opening.run])
        record = read_record(self._out / ANALYSIS_RECORD)
        runs = record.get("runs", [])
        own = recorded(self._out, opening.run)
        self._other_runs = [one for one in runs if one["name"] != opening.run]
        spool = Spool(self._out)
        self._other_rows = rows_of_others(self._out, opening.run, spool)
        self._steps: Steps = {one["step"]: dict(one) for one in own.get("checkpoints", [])}
        coarse = {*own.get("restarts_in_format", ())}
        self.restarts = {step: step not in coarse for step in own.get("restarts", ())}
        self._rows = RunRows(spool)
        self._read_store()
        self._skips = {Skip(**one): None for one in record.get("skipped", [])}
        self._notes = {Skip(**one): None for one in record.get("notes", [])}
        self._adapted: dict[tuple[int, str, str], tuple[bool, bool]] = {}
        self._unwritten: dict[int, list[Entry]] = {}
        self._earlier_seconds = float(own.get("cost", {}).get("processor_seconds", 0.0))
        self._cost = dict(own.get("cost", {}))
        self._is_new = False
        self._mirrored: list[int] = []
        self._mirrors = self._open.enter_context(
            open_mirrors(opening.to, out=self._out, columns=opening.columns)  # type: ignore[arg-type]
        )

    def add(self, step: int, component: Component, outcome: Outcome) -> None:
        """Add what became of a matrix."""
        task = SpectraTask(component, _key(self._opening.run, step, component))
        if isinstance(outcome, Failure):
            entries, skip = self._store.failed(task, outcome)
            self._skips[_at(skip, step)] = None
        else:
            entries = self._store.entries(task, outcome)  # type: ignore[arg-type]
            faults = (self._store.fault(task, entry) for entry in entries)
            self._skips |= dict.fromkeys(_at(one, step) for one in faults if one is not None)
            self._unwritten.setdefault(step, []).extend(entries)
        own = set(map(_matrix, entries))
        rows = self._rows.take(step)
        rows[:] = [row for row in rows if (row["component"], row["name"]) not in own]
        rows += [row_of(self._opening.run, step, entry) for entry in entries]
        change = getattr(component.recipe, "change", component.recipe)
        if isinstance(change, Difference):
            sides = (change.earlier.adapter is not None, change.later.adapter is not None)
            self._adapted[step, component.kind, component.name] = sides
        self._is_new = True

    def end_step(self, ended: EndOfStep) -> None:
        """Everything of a step is measured: store it, and mirror it with the next table."""
        self._steps[ended.step] = {
            "step": ended.step,
            "step_source": SOURCE,
            "layout": "live",
            "path": str(self._out),
            "matrices": ended.taken,
            "of": ended.of,
        }
        spent, elapsed = ended.cost
        self._cost = {"seconds": spent, "elapsed": elapsed}
        self._store_steps()
        self._rows.put_away()
        self._mirrored.append(ended.step)
        self._is_new = True

    def drop_from(self, step: int) -> list[int]:
        """Forget everything from this step on; returns the steps that had rows."""
        gone = [one for one in self._rows if one >= step]
        self._store_steps()
        for one in {*gone, *(old for old in self._steps if old >= step)}:
            self._rows.drop(one)
            self._steps.pop(one, None)
            self._path(one).unlink(missing_ok=True)
        # The state that it goes on from may be from before a merge of its step, which then comes
        # again, or from after it.
        self.restarts = {one: how for one, how in self.restarts.items() if one <= step}
        return gone

    def restart(self, step: int, contents: Contents, *, in_float64: bool) -> None:
        """Adapters of these contents were merged after this step.

        Only now is it known that the windows before it are of one cycle, or a whole one.
        """
        if step in self.restarts:
            return
        names = {name for name, p in contents.parameters.items() if p.adapter is not None}
        self.restarts[step] = in_float64
        self._store_steps()
        for at in [one for one in self._rows if one <= step]:
            rows = self._rows[at]
            kinds = {
                (row["component"], row["name"]): self._kind(row)
                for row in rows
                if row["name"] in names and row["since"] is not None
            }
            if all(row["window"] == kinds.get(_place(row), row["window"]) for row in rows):
                continue
            for row in rows:
                row["window"] = kinds.get(_place(row), row["window"])
            self._rows[at] = rows
            entries = [
                replace(
                    e, place={**e.place, "window": kinds.get(_place(e.place), e.place["window"])}
                )
                for e in self._store.read(self._path(at))
            ]
            self._store.write(self._path(at), [], entries)
            self._rows.put_away()
        self._is_new = True

    def _kind(self, row: Row) -> str:
        """Kind of the window of a change, as all restarts by now show it."""
        adapted = self._adapted.get((row["step"], *_place(row)), (True, True))
        sides = tuple(frozenset(["it"] if one else []) for one in adapted)
        merges = Merges(unread=tuple(self.restarts))  # of everything that has an adapter
        return Window(row["since"], row["step"], merges, None, (sides[0], sides[1])).kind("it")

    def say(self, skips: Sequence[Skip], notes: Sequence[Skip]) -> None:
        """Add lines to the record."""
        self._skips |= dict.fromkeys(skips)
        self._notes |= dict.fromkeys(notes)
        self._is_new = True

    def write(self, seconds: float) -> None:
        """Write what is not in the store yet, and the table, if anything is new."""
        self._store_steps()
        if not self._is_new:
            return
        parts = self._rows.parts()
        analysis = Analysis(
            skips=tuple(self._skips),
            notes=(*self._notes, *self._coverage()),
            mended=(),
            computed=sum(part.count for part in parts),
            key=None,  # an analysis of checkpoints never takes this table for its own
            runs=tuple(map(_run_of, (*self._other_runs, self._described(seconds)))),
            selection=self._opening.selection,
            parts=(*self._other_rows, *parts),
            breaks={},
        )
        if analysis.measured:
            runs = [*self._other_runs, self._described(seconds)]
            write_results(self._out, analysis, runs=runs)
        self._is_new = False
        while self._mirrored:
            step = self._mirrored.pop(0)
            if self._mirrors is not None and step in self._rows:
                self._mirrors.write(self._opening.run, step, self._rows[step])

    def close(self) -> None:
        """Close the mirrors, and let others write into the folder."""
        self._open.close()

    def _described(self, seconds: float) -> dict[str, Any]:
        return {
            "name": self._opening.run,
            "path": str(self._out),
            "unit": self._opening.unit,
            "planned": None,
            "checkpoints": [self._steps[step] for step in sorted(self._steps)],
            "merges": [],
            "restarts": sorted(self.restarts),
            "restarts_in_format": sorted(one for one, exact in self.restarts.items() if not exact),
            "monitor": dict(self._opening.about),
            "cost": {**self._cost, "processor_seconds": self._earlier_seconds + seconds},
        }

    def _coverage(self) -> list[Skip]:
        """A note if some steps have only some of the matrices."""
        partial = [one for one in self._steps.values() if one["matrices"] < one["of"]]
        if not partial:
            return []
        least, most = (pick(one["matrices"] for one in partial) for pick in (min, max))
        message = (
            f"{len(partial)} of {len(self._steps)} steps have {least} to {most} of "
            f"{partial[-1]['of']} matrices, in turn: rows of other matrices are at other steps"
        )
        return [Skip(str(self._out), self._opening.run, "sampled", message)]

    def _store_steps(self) -> None:
        for step in sorted(self._unwritten):
            path = self._path(step)
            new = self._unwritten.pop(step)
            own = set(map(_matrix, new))  # of a matrix that is taken again, whatever its window was
            stored = [entry for entry in self._store.read(path) if _matrix(entry) not in own]
            self._store.write(path, stored, new)

    def _path(self, step: int) -> Path:
        return spectra_store.store_path(self._out / SPECTRA_FOLDER, self._opening.run, step)

    def _read_store(self) -> None:
        """Take the rows of this run from the store, which may be ahead of the table."""
        for path in sorted(self._path(0).parent.glob("step-*.safetensors")):
            step = step_in_name(path.stem)
            if step is not None:
                entries = self._store.read(path)
                self._rows[step] = [row_of(self._opening.run, step, entry) for entry in entries]
                self._rows.put_away()


def _matrix(entry: Entry) -> tuple[object, ...]:
    return entry.place["component"], entry.place["name"]


def _key(run: str, step: int, component: Component) -> str:
    """Digest of the matrix's place: a live matrix has no file that could change later."""
    place = {k: v for k, v in component._asdict().items() if k != "recipe"}
    text = f"{SOURCE} {spectra_store.VERSION} {run!r} {step} {place}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["component"], row["name"]


def _at(skip: Skip, step: int) -> Skip:
    """A skip of a copy, which no longer exists when this is read: the step in place of the file."""
    return Skip(f"step {step}", skip.tensor, skip.reason, skip.message)


def _run_of(described: Mapping[str, Any]) -> Run:
    return Run(described["name"], Path(described["path"]), (), unit=described["unit"])
