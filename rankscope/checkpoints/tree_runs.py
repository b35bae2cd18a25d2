"""Which of the checkpoints in a tree make which runs, and what the others are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.beside_series import (
    counts_epochs,
    joined,
    resolved_doubles,
    why_left_out,
)
from rankscope.checkpoints.cache_runs import read_cache
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.file_names import may_be_model
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.name_parts import Unit
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.series import Arranged, Found, Series, arranged
from rankscope.checkpoints.sibling_names import lone_number, read_siblings
from rankscope.checkpoints.steps import is_unfinished, step_in_name
from rankscope.checkpoints.survey import Place, Use
from rankscope.checkpoints.walk import Node, Walk

SERIES_FOLDERS = ("checkpoints", "checkpoint")  # where trainers put them inside a run


class TreeRuns:
    """Reads the runs of one tree.

    Attributes
    ----------
    uses
        What became of the paths that belong to runs, or are checkpoints and left out.
    """

    def __init__(self, root: Path, walk: Walk) -> None:
        self.root, self.walk, self.options = root, walk, walk.options
        self.runs: list[Run] = []
        self.uses: dict[Path, Place] = {}
        self.skips: list[Skip] = []
        self.notes: list[Skip] = []

    def read(self, node: Node, *, part_of: str | None = None) -> None:
        """Read the runs in and below a folder, or that of a file.

        A folder at whose top a checkpoint lies is one, and can hold others all the same: series
        below it are runs, and what counts nothing belongs to it.

        Parameters
        ----------
        part_of
            Run of the checkpoint that lies around this folder, if one does.
        """
        homes = [node, *(child for child in node.children if _is_home(child))]
        placed = [(home, *_arranged(home)) for home in homes]
        own = _found(node, node.name) if node.layout and part_of is None else None
        for _, found, _ in placed if node.layout else []:
            self._take_own_state(found, node.step)
        series = [one for _, found, _ in placed for one in found.series]
        if own is not None and not series:
            part_of = self._lone(own)
        for home, found, _ in placed:
            self._beside(found, series, own if home is node else None, part_of)
        # Given the series of one of its runs, this finds the run, whose merges lie beside it.
        is_series_folder = node.path.name in SERIES_FOLDERS and not node.layout
        path = node.path.resolve().parent if is_series_folder else node.path
        several = sum(bool(found.series) for _, found, _ in placed) > 1
        for home, found, left in placed:
            for one in found.series:
                self._run(one, path, home.path.name if several and home is not node else "")
            self._below(home, left, part_of)

    def _below(self, home: Node, left: Sequence[Node], part_of: str | None) -> None:
        """Read what lies in folders that are in no series, and in those of checkpoints."""
        for child in left:
            if child.is_cache:
                self.read_cached(child.path, child.path)
            else:
                self.read(child, part_of=part_of)
        for child in home.children:
            use = self.uses.get(child.path)
            if child.layout and child.children and use is not None:
                self.read(child, part_of=use.run or child.name)

    def read_cached(self, place: Path, model: Path) -> None:
        """Read the runs of a model in the hub's cache, or of one snapshot of it."""
        found = read_cache(place, model, self.options)
        self.runs += found.runs
        self.skips += found.skips
        self.notes += found.notes
        self.uses |= {one.path: one for one in found.places}
        for snapshot, name in found.folders:
            inner = TreeRuns(snapshot.resolve(), self.walk)
            inner.read(self.walk.node(snapshot, is_root=True))
            names = {run.name: _renamed(run.name, inner.root.name, name) for run in inner.runs}
            self.runs += [replace(run, name=names[run.name]) for run in inner.runs]
            self.skips += inner.skips
            self.notes += inner.notes
            for path, use in inner.uses.items():
                self.uses[path] = replace(use, run=names.get(use.run, use.run))

    def _take_own_state(self, found: Arranged, step: Step | None) -> None:
        """Take what lies in the folder of a checkpoint and is of its own step for a part of it."""
        for series in list(found.series):
            if step is not None and set(series.members) == {step[0]}:
                found.series.remove(series)
                found.rest.extend(one for one, _ in series.members.values())

    def _beside(
        self, found: Arranged, series: list[Series], own: Found | None, part_of: str | None
    ) -> None:
        """Give those their place that no number gives one."""
        for one in [*found.rest, *([own] if own is not None and series else [])]:
            if not one.layout:
                continue
            if is_unfinished(one.name):
                self._leave_out(one, "is still being written, or was not written to its end")
            elif series and joined(series, one, is_root=one is own) is None:
                why = why_left_out(series, one, self.options, is_root=one is own)
                self._leave_out(one, why)
            elif not series and part_of is not None:
                self.uses[one.path] = Place(one.path, "part", part_of)
            elif not series:
                self._lone(one)
        if not series and part_of is None:
            self._tell_alike(found.alike)

    def _tell_alike(self, groups: Sequence[Sequence[Found]]) -> None:
        for group in groups:
            if len(group) > 1:
                names = ", ".join(one.path.name for one in group[:3])
                more = f" and {len(group) - 3} more" if len(group) > 3 else ""
                message = (
                    f"{names}{more} differ in numbers only, which are not known to count the steps "
                    f"of one training: they are {len(group)} runs"
                )
                self.notes.append(Skip(str(group[0].path.parent), "", "numbers-only", message))

    def _leave_out(self, one: Found, why: str) -> None:
        self.uses[one.path] = Place(one.path, "left out", reason=why)
        self.notes.append(Skip(str(one.path), "", "left-out", f"is left out: it {why}"))

    def _lone(self, one: Found) -> str:
        """Make the run of one checkpoint; return its name."""
        step, unit = self._lone_step(one)
        run = Run(self._name(one.path), one.path, (one.at(step, self.options),), unit=unit)
        self.runs.append(run)
        self.uses[one.path] = Place(one.path, "step", run.name, step[0])
        return run.name

    def _lone_step(self, one: Found) -> tuple[Step, Unit]:
        """Step of a checkpoint that is in no series: from it, its name, or the folder given."""
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
        full = f"{name}/{title}" if title else name
        self.runs.append(Run(full, path, checkpoints, title or None, series.unit))
        for checkpoint in checkpoints:
            use: Use = "unreadable" if checkpoint.fault else "step"
            where, step = checkpoint.path, checkpoint.step
            self.uses[where] = Place(where, use, full, step, checkpoint.fault)
        for step, (found, _) in series.members.items():
            depth = found.name.count("/")
            if depth:  # the folder of the step stands above
                above = found.path.parents[depth - 1]
                self.uses.setdefault(above, Place(above, "part", full, step))
        for found, skip, costs in resolved_doubles(series, self.options):
            (self.skips if costs else self.notes).append(skip)
            self.uses[found.path] = Place(found.path, "left out", full, reason=skip.message)

    def _name(self, path: Path) -> str:
        real = path.resolve()
        if real == self.root or not real.is_relative_to(self.root):
            return real.name
        return real.relative_to(self.root).as_posix()


def _renamed(name: str, root: str, instead: str) -> str:
    """The name of a run below a folder, with another name for the folder."""
    below = name.removeprefix(root)
    return instead + (below if not below or below.startswith("/") else f"/{below}")


def _is_home(child: Node) -> bool:
    """Whether a folder is one in which trainers put the checkpoints of the run around it."""
    return child.path.name in SERIES_FOLDERS and not child.layout and child.has_checkpoints


def _found(node: Node, name: str) -> Found:
    return Found(node.path, name, node.layout, node.step)


def _arranged(home: Node) -> tuple[Arranged, list[Node]]:
    """What lies in a folder, in order, and the folders in it that are to be read by themselves."""
    plain = [child for child in home.children if not child.why and not child.is_cache]
    direct = [_found(child, child.name) for child in plain if child.layout]
    if home.layout:  # the files of a checkpoint are no checkpoints, unless words say so
        direct = [one for one in direct if not one.path.is_file() or _is_worded(one.name)]
    suffixes = {one.kind for one in direct}
    direct += [
        _found(child, child.name)
        for child in plain
        if not child.has_checkpoints and _may_be_step(child, suffixes)
    ]
    folders = [c for c in plain if not c.is_file and not c.layout and not _is_home(c)]
    inside, left = _in_step_folders(folders)
    return arranged([*direct, *inside]), [*left, *(c for c in home.children if c.is_cache)]


def _is_worded(name: str) -> bool:
    return step_in_name(name) is not None and not name.lower().removeprefix("model_").isdigit()


def _may_be_step(child: Node, suffixes: set[str]) -> bool:
    """Whether something that is not recognised could be a step that cannot be read."""
    if not child.is_file:
        return "/" in suffixes
    return child.path.suffix in suffixes and may_be_model(child.path)


def _in_step_folders(folders: list[Node]) -> tuple[list[Found], list[Node]]:
    """Checkpoints below folders of steps, named with these; and the folders that are not of steps.

    The name of a folder counts as that of a checkpoint does, but for a bare number, which folders
    of a sweep have. They are folders of steps only if each has one checkpoint of a kind, so that
    all below them are of as many steps as there are folders: else each is a place for runs.
    """
    names = read_siblings([f"{folder.name}/" for folder in folders])
    inside: list[Found] = []
    taken: set[int] = set()
    for counted in names.series:
        places = [place for _, place in counted.members]
        some = [one for place in places for one in _iter_below(folders[place])]
        below = {one.name.partition("/")[2] for one in some}
        for place in places:
            if not folders[place].has_checkpoints:
                some += [_missing(folders[place], path) for path in sorted(below)]
        series = arranged(some).series if below else []
        count = sum(len(one.members) for one in series)
        if count == len(some) and not any(one.doubles for one in series):
            inside += some
            taken.update(places)
    left = [f for i, f in enumerate(folders) if i not in taken and f.has_checkpoints]
    return inside, left


def _iter_below(folder: Node, above: str = "") -> Iterator[Found]:
    """The topmost checkpoints below a folder, with the names of folders before theirs."""
    name = f"{above}{folder.path.name}/"
    for child in folder.children:
        if child.layout:
            yield _found(child, name + child.name)
        else:
            yield from _iter_below(child, name)


def _missing(folder: Node, below: str) -> Found:
    """What stands in a folder of a step for the checkpoint that others have there."""
    paths = [node.path for node in folder if node.is_file and node.path.stem == Path(below).name]
    path = next((one for one in paths if may_be_model(one)), folder.path)
    return Found(path, f"{folder.path.name}/{below}", "", None)
