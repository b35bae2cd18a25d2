"""The runs in a tree of folders, and what became of the other checkpoints in it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rankscope.addresses import COLON, is_stand_in
from rankscope.checkpoints.beside_series import (
    counts_epochs,
    joined,
    resolved_doubles,
    step_mismatch,
    why_left_out,
)
from rankscope.checkpoints.cache_runs import read_cache
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.folder_series import (
    SERIES_FOLDERS,
    candidate,
    is_series_folder,
    series_in,
)
from rankscope.checkpoints.folder_tree import Node, Walk
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.name_words import Unit
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.series import Arrangement, Candidate, Series
from rankscope.checkpoints.sibling_names import lone_number
from rankscope.checkpoints.steps import is_unfinished, step_in_name
from rankscope.checkpoints.survey import Place, Use


class TreeRuns:
    """Reads the runs of one tree.

    Attributes
    ----------
    places
        What became of every checkpoint, by path.
    """

    def __init__(self, root: Path, walk: Walk) -> None:
        self.root, self.walk, self.options = root, walk, walk.options
        self.runs: list[Run] = []
        self.places: dict[Path, Place] = {}
        self.skips: list[Skip] = []
        self.notes: list[Skip] = []

    def read(self, node: Node, *, part_of: str | None = None) -> None:
        """Read the runs in and below a folder, or that of a file.

        A folder that is a checkpoint may hold others: series below it are runs, and whatever has
        no number belongs to it.

        Parameters
        ----------
        part_of
            The run of the checkpoint that this folder is in, if it is in one.
        """
        homes = [node, *(child for child in node.children if is_series_folder(child))]
        read = [(home, *series_in(home)) for home in homes]
        own = candidate(node, node.name) if node.layout and part_of is None else None
        for _, arrangement, _ in read if node.layout else []:
            self._take_own_state(arrangement, node.step)
        series = [one for _, arrangement, _ in read for one in arrangement.series]
        if own is not None and not series:
            part_of = self._lone(own)
        if part_of is None and not series:
            for home, arrangement, left in read:
                left += _runs_around(home, arrangement)
        for home, arrangement, _ in read:
            self._beside(arrangement, series, own if home is node else None, part_of)
        # Given RUN/checkpoints, the run is RUN: its merges are there.
        is_below_run = node.path.name in SERIES_FOLDERS and not node.layout
        path = node.path.resolve().parent if is_below_run else node.path
        several = sum(bool(arrangement.series) for _, arrangement, _ in read) > 1
        for home, arrangement, left in read:
            for one in arrangement.series:
                self._run(one, path, home.path.name if several and home is not node else "")
            self._below(home, left, part_of)

    def _below(self, home: Node, left: Sequence[Node], part_of: str | None) -> None:
        """Read the folders that are in no series, and those that are checkpoints."""
        for child in left:
            if child.is_cache:
                self.read_cached(child.path, child.path)
            else:
                self.read(child, part_of=part_of)
        read = {child.path for child in left}
        for child in home.children:
            place = self.places.get(child.path)
            if child.layout and child.children and place is not None and child.path not in read:
                self.read(child, part_of=place.run or child.name)

    def read_cached(self, folder: Path, model: Path) -> None:
        """Read the runs of a model in the hub's cache, or of the snapshot that is ``folder``."""
        cached = read_cache(folder, model, self.options)
        self.runs += cached.runs
        self.skips += cached.skips
        self.notes += cached.notes
        self.places |= {one.path: one for one in cached.places}
        for snapshot, name in cached.folders:
            inner = TreeRuns(snapshot.resolve(), self.walk)
            inner.read(self.walk.node(snapshot, is_root=True))
            names = {run.name: _renamed(run.name, inner.root.name, name) for run in inner.runs}
            self.runs += [replace(run, name=names[run.name]) for run in inner.runs]
            self.skips += inner.skips
            self.notes += inner.notes
            for path, place in inner.places.items():
                self.places[path] = replace(place, run=names.get(place.run, place.run))

    def _take_own_state(self, inside: Arrangement, step: Step | None) -> None:
        """Make what is in the folder of a checkpoint and has its step a part of the checkpoint."""
        for series in list(inside.series):
            if step is not None and set(series.members) == {step[0]}:
                inside.series.remove(series)
                inside.rest.extend(one for one, _ in series.members.values())

    def _beside(
        self,
        arrangement: Arrangement,
        series: list[Series],
        own: Candidate | None,
        part_of: str | None,
    ) -> None:
        """Decide what becomes of the checkpoints without a number."""
        for one in [*arrangement.rest, *([own] if own is not None and series else [])]:
            if not one.layout:
                continue
            if is_unfinished(one.name):
                self._leave_out(one, "is still being written, or was not finished")
            elif series and joined(series, one, is_root=one is own) is None:
                why = why_left_out(series, one, self.options, is_root=one is own)
                self._leave_out(one, why)
            elif not series and part_of is not None:
                self.places[one.path] = Place(one.path, "part", part_of)
            elif not series:
                self._lone(one)
        if not series and part_of is None:
            self._note_alike(arrangement.alike)

    def _note_alike(self, groups: Sequence[Sequence[Candidate]]) -> None:
        for group in groups:
            if len(group) > 1:
                names = ", ".join(one.path.name for one in group[:3])
                more = f" and {len(group) - 3} more" if len(group) > 3 else ""
                message = (
                    f"{names}{more} differ only in numbers that may not count the steps of one "
                    f"training: they are {len(group)} runs; if they are steps, put the word step "
                    "before the number"
                )
                self.notes.append(Skip(str(group[0].path.parent), "", "numbers-only", message))

    def _leave_out(self, one: Candidate, why: str) -> None:
        self.places[one.path] = Place(one.path, "left out", reason=why)
        self.notes.append(Skip(str(one.path), "", "left-out", f"is left out: it {why}"))

    def _lone(self, one: Candidate) -> str:
        """Make a run of one checkpoint; return the name of the run."""
        step, unit = self._lone_step(one)
        run = Run(self._name(one.path), one.path, (one.at(step, self.options),), unit=unit)
        self.runs.append(run)
        self.places[one.path] = Place(one.path, "step", run.name, step[0])
        return run.name

    def _lone_step(self, one: Candidate) -> tuple[Step, Unit]:
        """Step of a checkpoint that is in no series: its own, that of its name or of the root's."""
        if one.step is not None:
            return one.step, "step"
        counted = lone_number(one.name)
        if counted is not None:
            return (counted[0], "file" if one.path.is_file() else "folder"), counted[1]
        above = step_in_name(self.root.name) if one.path.resolve() != self.root else None
        return ((0, "order") if above is None else (above, "folder")), "step"

    def _run(self, series: Series, path: Path, home: str) -> None:
        name = self._name(path)
        title = "/".join(filter(None, (home, series.title)))
        if counts_epochs(series):
            series.unit = "epoch"
        checkpoints = series.checkpoints(self.options)
        full = as_text(f"{name}/{title}") if title else name
        self.runs.append(Run(full, path, checkpoints, title or None, series.unit))
        for checkpoint in checkpoints:
            use: Use = "unreadable" if checkpoint.fault else "step"
            where, step = checkpoint.path, checkpoint.step
            self.places[where] = Place(where, use, full, step, checkpoint.fault)
        for step, (member, _) in series.members.items():
            depth = member.name.count("/")
            if depth:  # the folder of the step is above it
                above = member.path.parents[depth - 1]
                self.places.setdefault(above, Place(above, "part", full, step))
        mismatch = step_mismatch(series)
        if mismatch is not None:
            self.notes.append(mismatch)
        for double, line, is_missing in resolved_doubles(series, self.options):
            (self.skips if is_missing else self.notes).append(line)
            self.places[double.path] = Place(double.path, "left out", full, reason=line.message)

    def _name(self, path: Path) -> str:
        real = path.resolve()
        if real == self.root or not real.is_relative_to(self.root):
            name = real.name.replace(COLON, ":") if is_stand_in(real) else real.name
            return as_text(name)
        return as_text(real.relative_to(self.root).as_posix())


def _runs_around(home: Node, arrangement: Arrangement) -> list[Node]:
    """Take out what is a checkpoint and has others below it: a run, with its last model beside.

    Programs save the model at the end of a training into the folder that holds its checkpoints.
    """
    runs = {
        child.path: child
        for child in home.children
        if child.layout and any(below.has_checkpoints for below in child.children)
    }
    found = [runs[one.path] for one in arrangement.rest if one.path in runs]
    arrangement.rest[:] = [one for one in arrangement.rest if one.path not in runs]
    return found


def as_text(name: str) -> str:
    """The name of a file or folder as text that a table can hold.

    Bytes that are not UTF-8, which Python shows as halves of characters, become escapes.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _renamed(name: str, root: str, instead: str) -> str:
    """The name of a run below a folder, with ``instead`` for the name of the folder."""
    below = name.removeprefix(root)
    return instead + (below if not below or below.startswith("/") else f"/{below}")
