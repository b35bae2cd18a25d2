"""A line for everything in a tree: what belongs to a run, and what is left out and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.file_names import NO_MODEL_FOLDERS
from rankscope.checkpoints.sibling_names import lone_number
from rankscope.checkpoints.steps import stated_name
from rankscope.checkpoints.survey import BESIDE, Place, Use, is_notable, reason_of
from rankscope.checkpoints.tree_runs import TreeRuns
from rankscope.checkpoints.walk import LINK, STATE, Node

MANY = 5  # from here on, files of a folder that are left out for one reason share a line


def iter_places(tree: Node, reading: TreeRuns) -> Iterator[Place]:
    """What became of each folder and file of a tree, in order.

    A folder in which nothing is a checkpoint is one line, and so are files in it that look like
    weights. The files in the folder of a checkpoint are part of it, and have no line.
    """
    if tree.is_cache:
        yield from reading.uses.values()
        return
    owners = {run.path: run.name for run in reversed(reading.runs)}
    yield from _iter_below(tree, reading.uses, owners, owner="")


def _iter_below(
    node: Node, uses: Mapping[Path, Place], owners: Mapping[Path, str], *, owner: str
) -> Iterator[Place]:
    used = uses.get(node.path)
    owner = owners.get(node.path, used.run if used is not None else owner)
    if node.is_cache:
        yield from (place for path, place in uses.items() if path.is_relative_to(node.path))
        return
    if used is not None:
        yield used
    elif node.sliced:
        wholes = [whole for path in node.sliced if (whole := uses.get(path))]
        step = wholes[0].step if len(node.sliced) == 1 and wholes else None
        yield Place(node.path, "part", wholes[0].run if wholes else owner, step, node.why)
    elif node.why:
        use: Use = "part" if node.why == STATE else "left out"
        yield Place(node.path, use, owner if use == "part" else "", reason=node.why)
    elif node.is_file:
        yield _file(node.path, owner)
    elif not any(one.path in uses or one.is_cache for one in node):
        yield from _iter_unused(node, owner)
        return
    for child in node.children:
        is_within = used is not None and bool(node.layout) and child.is_file
        if not is_within or child.path in uses:
            yield from _iter_below(child, uses, owners, owner=owner)


def _file(path: Path, owner: str) -> Place:
    """A file beside checkpoints."""
    if owner and BESIDE.fullmatch(path.name):
        return Place(path, "part", owner)
    return Place(path, "left out", reason=reason_of(path))


def _iter_unused(folder: Node, owner: str) -> Iterator[Place]:
    """A folder without checkpoints, and what in it could be taken for one."""
    inside = [node for node in folder if node is not folder]
    is_state = any(node.why == STATE for node in inside)
    if owner and (is_state or folder.path.name in NO_MODEL_FOLDERS):
        yield Place(folder.path, "part", owner, reason=STATE if is_state else "")
        return
    links = sum(node.why == LINK for node in inside)
    if not inside:
        why = "is empty"
    elif links == len(inside):
        why = f"holds links only, {links} of them, which are not followed"
    else:
        why = f"holds no checkpoint ({len(inside)} files and folders)"
    yield Place(folder.path, "left out", reason=why)
    for node in inside:
        if node.is_file and not node.why and is_notable(node.path):
            yield _file(node.path, "")


def iter_lost_steps(places: Iterable[Place], root: Path) -> Iterator[Skip]:
    """A skip for every link that is called as a step is, and leads to nothing that is read.

    Steps are kept on another disk, with a link in their place. What lies below the folder that was
    given is met there, so that a link to it costs nothing. Errs where a link to data has the name
    of a step.
    """
    for place in places:
        if place.reason != LINK or lone_number(stated_name(place.path)) is None:
            continue
        target = place.path.resolve()
        if not target.exists():
            what = "is a link that leads nowhere"
        elif not target.is_relative_to(root.resolve()):
            what = "is a link out of the folder given, and links are not followed"
        else:
            continue
        yield Skip(str(place.path), "", "link", f"{what}: put the checkpoint itself there")


def iter_notes(places: Iterable[Place], named: Collection[str]) -> Iterator[Skip]:
    """A line for each that looks like weights and is not read, or holds nothing but links.

    Where there are many in a folder, one line for all of them.

    Parameters
    ----------
    named
        Paths that have a line already.
    """
    groups: dict[tuple[Path, str], list[Place]] = {}
    for place in places:
        if place.use != "left out" or str(place.path) in named:
            continue
        is_file = place.path.is_file() and not place.path.is_symlink()
        if (is_file and is_notable(place.path)) or "holds links only" in place.reason:
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
