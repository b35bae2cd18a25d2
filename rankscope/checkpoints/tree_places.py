"""The places of a tree: what became of every folder and file, and the lines about them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rankscope.addresses import shown
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.file_names import NO_MODEL_FOLDERS
from rankscope.checkpoints.folder_tree import LINK, STATE, Node
from rankscope.checkpoints.sibling_names import lone_number
from rankscope.checkpoints.steps import stated_name
from rankscope.checkpoints.survey import BESIDE, Place, Use, is_notable, reason_of
from rankscope.checkpoints.tree_runs import TreeRuns

MANY = 5  # more files of a folder that are left out for one reason share a line
ONLY_LINKS = "holds only links"


def iter_places(tree: Node, reading: TreeRuns) -> Iterator[Place]:
    """What became of each folder and file of a tree, in order.

    A folder without checkpoints is one place, and so is each file in it that looks like weights.
    The files in the folder of a checkpoint are parts of it and not listed.
    """
    if tree.is_cache:
        yield from reading.places.values()
        return
    owners = {run.path: run.name for run in reversed(reading.runs)}
    yield from _iter_below(tree, reading.places, owners, owner="")


def _iter_below(
    node: Node, places: Mapping[Path, Place], owners: Mapping[Path, str], *, owner: str
) -> Iterator[Place]:
    known = places.get(node.path)
    owner = owners.get(node.path, known.run if known is not None else owner)
    if node.is_cache:
        yield from (place for path, place in places.items() if path.is_relative_to(node.path))
        return
    if known is not None:
        yield known
    elif node.sliced:
        wholes = [whole for path in node.sliced if (whole := places.get(path))]
        step = wholes[0].step if len(node.sliced) == 1 and wholes else None
        yield Place(node.path, "part", wholes[0].run if wholes else owner, step, node.why)
    elif node.why:
        use: Use = "part" if node.why == STATE else "left out"
        yield Place(node.path, use, owner if use == "part" else "", reason=node.why)
    elif node.is_file:
        yield _file(node.path, owner)
    elif not any(one.path in places or one.is_cache for one in node):
        yield from _iter_unused(node, owner)
        return
    for child in node.children:
        is_part = known is not None and bool(node.layout) and child.is_file
        if not is_part or child.path in places:
            yield from _iter_below(child, places, owners, owner=owner)


def _file(path: Path, owner: str) -> Place:
    """A file beside checkpoints."""
    if owner and BESIDE.fullmatch(path.name):
        return Place(path, "part", owner)
    return Place(path, "left out", reason=reason_of(path))


def _iter_unused(folder: Node, owner: str) -> Iterator[Place]:
    """A folder without checkpoints, and the files in it that look like one."""
    inside = [node for node in folder if node is not folder]
    is_state = any(node.why == STATE for node in inside)
    if owner and (is_state or folder.path.name in NO_MODEL_FOLDERS):
        yield Place(folder.path, "part", owner, reason=STATE if is_state else "")
        return
    links = sum(node.why == LINK for node in inside)
    if not inside:
        why = "is empty"
    elif links == len(inside):
        why = f"{ONLY_LINKS} ({links}), which are not followed"
    else:
        what = "files and folders" if len(inside) > 1 else "file or folder"
        why = f"holds no checkpoint ({len(inside)} {what})"
    yield Place(folder.path, "left out", reason=why)
    for node in inside:
        if node.is_file and not node.why and is_notable(node.path):
            yield _file(node.path, "")


def iter_lost_steps(places: Iterable[Place], root: Path) -> Iterator[Skip]:
    """A skip for every link that has the name of a step and leads to nothing that is read.

    Such steps are on another disk, for example. A link to something below the folder that was given
    costs nothing, since that is read itself. An error: a link to data that has the name of a step.
    """
    for place in places:
        if place.reason != LINK or lone_number(stated_name(place.path)) is None:
            continue
        target = Path(os.path.realpath(place.path))  # a loop of links has an end here
        if not target.exists():
            what = "is a link that leads nowhere"
        elif not target.is_relative_to(root.resolve()):
            what = "leads out of the folder given, and links are not followed"
        else:
            continue
        yield Skip(str(place.path), "", "link", f"{what}: put the checkpoint there instead")


def iter_notes(places: Iterable[Place], named: Collection[str]) -> Iterator[Skip]:
    """A note for each file that looks like weights and is not read, and each folder of links.

    Many in one folder share a note.

    Parameters
    ----------
    named
        Paths that have a note or a skip already.
    """
    groups: dict[tuple[Path, str], list[Place]] = {}
    for place in places:
        if place.use != "left out" or shown(place.path) in named:
            continue
        is_file = place.path.is_file() and not place.path.is_symlink()
        if (is_file and is_notable(place.path)) or place.reason.startswith(ONLY_LINKS):
            groups.setdefault((place.path.parent, place.reason), []).append(place)
    for (folder, reason), group in groups.items():
        if len(group) > MANY:
            message = (
                f"{len(group)} files, such as {group[0].path.name}, are left out: each {reason}"
            )
            yield Skip(str(folder), "", "left-out", message)
        else:
            for place in group:
                yield Skip(str(place.path), "", "left-out", f"is left out: it {reason}")
