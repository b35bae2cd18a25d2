"""The series in one folder: its checkpoints, and those below folders that are steps themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rankscope.checkpoints.folder_tree import Node
from rankscope.checkpoints.layouts.single_file import may_be_model
from rankscope.checkpoints.series import Arrangement, Candidate, arrangement_of
from rankscope.checkpoints.sibling_names import read_siblings
from rankscope.checkpoints.steps import step_in_name

SERIES_FOLDERS = ("checkpoints", "checkpoint")  # where trainers put them inside a run


def is_home(child: Node) -> bool:
    """Whether a folder is one in which trainers put the checkpoints of the run around it."""
    return child.path.name in SERIES_FOLDERS and not child.layout and child.has_checkpoints


def candidate(node: Node, name: str) -> Candidate:
    """A folder or file of the tree as a checkpoint of this name."""
    return Candidate(node.path, name, node.layout, node.step)


def series_in(home: Node) -> tuple[Arrangement, list[Node]]:
    """What lies in a folder, in order, and the folders in it that are to be read by themselves."""
    plain = [child for child in home.children if not child.why and not child.is_cache]
    direct = [candidate(child, child.name) for child in plain if child.layout]
    if home.layout:  # the files of a checkpoint are no checkpoints, unless words say so
        direct = [one for one in direct if not one.path.is_file() or _is_worded(one.name)]
    suffixes = {one.kind for one in direct}
    direct += [
        candidate(child, child.name)
        for child in plain
        if not child.has_checkpoints and _may_be_step(child, suffixes)
    ]
    folders = [c for c in plain if not c.is_file and not c.layout and not is_home(c)]
    inside, left = _in_step_folders(folders)
    return arrangement_of([*direct, *inside]), [*left, *(c for c in home.children if c.is_cache)]


def _is_worded(name: str) -> bool:
    return step_in_name(name) is not None and not name.lower().removeprefix("model_").isdigit()


def _may_be_step(child: Node, suffixes: set[str]) -> bool:
    """Whether something that is not recognised could be a step that cannot be read."""
    if not child.is_file:
        return "/" in suffixes
    return child.path.suffix in suffixes and may_be_model(child.path)


def _in_step_folders(folders: list[Node]) -> tuple[list[Candidate], list[Node]]:
    """Checkpoints below folders of steps, named with these; and the folders that are not of steps.

    The name of a folder counts as that of a checkpoint does, but for a bare number, which folders
    of a sweep have. They are folders of steps only if each has one checkpoint of a kind, so that
    all below them are of as many steps as there are folders: else each is a place for runs.
    """
    names = read_siblings([f"{folder.name}/" for folder in folders])
    inside: list[Candidate] = []
    taken: set[int] = set()
    for counted in names.series:
        places = [place for _, place in counted.members]
        some = [one for place in places for one in _iter_below(folders[place])]
        below = {one.name.partition("/")[2] for one in some}
        for place in places:
            if not folders[place].has_checkpoints:
                some += [_missing(folders[place], path) for path in sorted(below)]
        series = arrangement_of(some).series if below else []
        count = sum(len(one.members) for one in series)
        if count == len(some) and not any(one.doubles for one in series):
            inside += some
            taken.update(places)
    left = [f for i, f in enumerate(folders) if i not in taken and f.has_checkpoints]
    return inside, left


def _iter_below(folder: Node, above: str = "") -> Iterator[Candidate]:
    """The topmost checkpoints below a folder, with the names of folders before theirs."""
    name = f"{above}{folder.path.name}/"
    for child in folder.children:
        if child.layout:
            yield candidate(child, name + child.name)
        else:
            yield from _iter_below(child, name)


def _missing(folder: Node, below: str) -> Candidate:
    """What stands in a folder of a step for the checkpoint that others have there."""
    paths = [node.path for node in folder if node.is_file and node.path.stem == Path(below).name]
    path = next((one for one in paths if may_be_model(one)), folder.path)
    return Candidate(path, f"{folder.path.name}/{below}", "", None)
