"""The series in one folder, among the checkpoints in it and in the folders of its steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rankscope.checkpoints.files.file_names import may_be_model
from rankscope.checkpoints.folder_tree import Node
from rankscope.checkpoints.series import Arrangement, Candidate, arrangement_of
from rankscope.checkpoints.sibling_names import read_siblings
from rankscope.checkpoints.steps import step_in_name

SERIES_FOLDERS = ("checkpoints", "checkpoint")  # in which trainers put the steps of a run


def is_series_folder(node: Node) -> bool:
    """Whether a folder is one in which trainers put the checkpoints of the run around it."""
    return node.path.name in SERIES_FOLDERS and not node.layout and node.has_checkpoints


def candidate(node: Node, name: str) -> Candidate:
    """A folder or file of the tree as a possible checkpoint, under this name."""
    return Candidate(node.path, name, node.layout, node.step)


def series_in(folder: Node) -> tuple[Arrangement, list[Node]]:
    """The series of a folder, and the folders in it that must be read on their own."""
    plain = [child for child in folder.children if not child.why and not child.is_cache]
    direct = [candidate(child, child.name) for child in plain if child.layout]
    if folder.layout:  # its files are parts of a checkpoint, unless their names have words
        direct = [one for one in direct if not one.path.is_file() or _is_worded(one.name)]
    kinds = {one.kind for one in direct}
    direct += [
        candidate(child, child.name)
        for child in plain
        if not child.has_checkpoints and _may_be_step(child, kinds)
    ]
    others = [c for c in plain if not c.is_file and not c.layout and not is_series_folder(c)]
    inside, left = _in_step_folders(others)
    caches = (child for child in folder.children if child.is_cache)
    return arrangement_of([*direct, *inside]), [*left, *caches]


def _is_worded(name: str) -> bool:
    return step_in_name(name) is not None and not name.lower().removeprefix("model_").isdigit()


def _may_be_step(child: Node, kinds: set[str]) -> bool:
    """Whether something that is not recognised may be a step that cannot be read."""
    if not child.is_file:
        return "/" in kinds
    return child.path.suffix in kinds and may_be_model(child.path)


def _in_step_folders(folders: list[Node]) -> tuple[list[Candidate], list[Node]]:
    """Checkpoints below the folders of steps; and the other folders that hold checkpoints.

    The name of a folder counts as that of a checkpoint does, except for a bare number, as the
    folders of a sweep have. Folders are those of steps only if each holds the same checkpoints,
    one per series. Otherwise each is a folder of runs.
    """
    names = read_siblings([f"{folder.name}/" for folder in folders])
    inside: list[Candidate] = []
    taken: set[int] = set()
    for counted in names.series:
        indices = [index for _, index in counted.members]
        candidates = [one for index in indices for one in _iter_below(folders[index])]
        below = {one.name.partition("/")[2] for one in candidates}
        for index in indices:
            if not folders[index].has_checkpoints:
                candidates += [_missing(folders[index], path) for path in sorted(below)]
        series = arrangement_of(candidates).series if below else []
        count = sum(len(one.members) for one in series)
        if count == len(candidates) and not any(one.doubles for one in series):
            inside += candidates
            taken.update(indices)
    left = [f for i, f in enumerate(folders) if i not in taken and f.has_checkpoints]
    return inside, left


def _iter_below(folder: Node, above: str = "") -> Iterator[Candidate]:
    """The topmost checkpoints below a folder, their names with those of the folders before them."""
    name = f"{above}{folder.path.name}/"
    for child in folder.children:
        if child.layout:
            yield candidate(child, name + child.name)
        else:
            yield from _iter_below(child, name)


def _missing(folder: Node, below: str) -> Candidate:
    """What stands for a checkpoint that the folder of a step lacks and the other steps have."""
    paths = [node.path for node in folder if node.is_file and node.path.stem == Path(below).name]
    path = next((one for one in paths if may_be_model(one)), folder.path)
    return Candidate(path, f"{folder.path.name}/{below}", "", None)
