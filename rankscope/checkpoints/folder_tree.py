"""The tree of a folder: what is in it, and which of that is a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints import hub_folder
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.limits import MAX_DEPTH
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.sibling_names import lone_number
from rankscope.checkpoints.slicing.sliced_groups import sliced_groups
from rankscope.checkpoints.slicing.slices_by_name import Slices
from rankscope.checkpoints.steps import stated_name
from rankscope.checkpoints.survey import RESULTS, is_results
from rankscope.errors import RankscopeError, cannot_be_read
from rankscope.results.columns import OWN

STATE_FORMAT = "rankscope-state"
STATE_KEY = "adam_steps"  # only in the state.json of a state to resume from
STATE = "is what the training resumes from"
LINK = "is a link, which is not followed"
SLICE = "is a slice of the checkpoint beside it"


@dataclass
class Node:
    """A folder or file, and what is below it.

    Attributes
    ----------
    layout
        The layout that it is a checkpoint of; empty if it is not a checkpoint.
    step
        The step that its layout finds for it.
    why
        Why it is not looked into: it is hidden, a link, results of rankscope, a state to resume
        from, or a slice.
    sliced
        The first slices of the checkpoints that it is, or holds, slices of.
    shared_name
        For a first slice: the name that all slices share, without their numbers.
    """

    path: Path
    is_file: bool
    layout: str = ""
    step: Step | None = None
    why: str = ""
    is_cache: bool = False
    children: list[Node] = field(default_factory=list)
    sliced: tuple[Path, ...] = ()
    shared_name: str = ""

    @property
    def name(self) -> str:
        """Its name, from which its step is read."""
        return self.shared_name or stated_name(self.path)

    def __iter__(self) -> Iterator[Node]:
        """Itself and everything below it, depth first."""
        yield self
        for child in self.children:
            yield from child

    @property
    def has_checkpoints(self) -> bool:
        """Whether it or anything below it is a checkpoint, or a hub cache that may hold some."""
        return any(node.layout or node.is_cache for node in self)


class Walk:
    """Makes the tree of a path. ``skips`` lists what could not be read on the way."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.skips: list[Skip] = []

    def node(self, path: Path, *, is_root: bool = False, depth: int = 0) -> Node:
        """The tree of a path. Links are not followed, and rankscope's results are not looked into.

        Results may have been written among checkpoints. So a folder of results is looked into too,
        except for what rankscope wrote there, and counts as one only if it holds no checkpoint.

        The folder of a checkpoint is looked into only if it may have other checkpoints below it:
        if it was given, or if its name has no number that counts. Nor is anything looked into that
        is ``depth`` folders below the given path, and more than `MAX_DEPTH`.
        """
        node = Node(path, path.is_file())
        try:
            self._look_into(node, is_root=is_root, depth=depth)
        except OSError as error:
            if is_root:
                raise
            self._lost(cannot_be_read(error, path))
        return node

    def _look_into(self, node: Node, *, is_root: bool, depth: int) -> None:
        path = node.path
        node.is_cache = not node.is_file and not is_root and hub_folder.is_model(path)
        node.why = "" if node.is_cache else _why_not(path, is_root=is_root)
        if node.why or node.is_cache:
            return
        node.layout = layout_of(path, self.options.layout) or ""
        if node.layout:
            node.step = self._step(node)
        if not node.is_file and (is_root or not node.layout or lone_number(node.name) is None):
            if depth > MAX_DEPTH:
                message = f"is more than {MAX_DEPTH} folders below: it is not searched"
                self.skips.append(Skip(str(path), "", "over-limit", message))
                return
            listed = self._listed(path, is_root=is_root)
            slices = self._slices(node, listed)
            others = [self.node(one, depth=depth + 1) for one in listed if one not in slices]
            sliced = [one for ones in slices.values() for one in ones]
            node.children = sorted([*others, *sliced], key=lambda child: child.path)
        if not node.is_file and not node.has_checkpoints and is_results(path):
            node.why, node.children = RESULTS, []

    def _slices(self, folder: Node, listed: list[Path]) -> dict[Path, list[Node]]:
        """Nodes of the files and folders that are, or hold, slices of checkpoints, by path.

        The first slice stands for the checkpoint, unless the folder itself does.
        """
        if folder.layout not in ("", "slices") or self.options.layout not in (None, "slices"):
            return {}
        nodes: dict[Path, list[Node]] = {}
        for group in sliced_groups(path for path in listed if not path.name.startswith(".")):
            if group.is_whole:
                continue
            for child in dict.fromkeys(_child(folder.path, file) for file in group.files):
                if child != group.path:
                    slices = nodes.setdefault(child, [Node(child, child.is_file(), why=SLICE)])
                    slices[0].sliced = (*slices[0].sliced, group.path)
            if group.path != folder.path:
                first = _child(folder.path, group.path)
                nodes.setdefault(first, []).append(self._first_slice(group))
        return nodes

    def _first_slice(self, group: Slices) -> Node:
        node = Node(group.path, is_file=True, layout="slices", shared_name=group.name)
        node.step = self._step(node)
        return node

    def _step(self, node: Node) -> Step | None:
        try:
            return LAYOUTS[node.layout].step(node.path)
        except RankscopeError as error:
            self._lost(error)
            return None

    def _lost(self, error: RankscopeError) -> None:
        self.skips.append(Skip(error.path or "", "", error.reason, error.message))

    def _listed(self, folder: Path, *, is_root: bool) -> list[Path]:
        try:
            left_out = OWN if is_results(folder) else ()
            return sorted(path for path in folder.iterdir() if path.name not in left_out)
        except OSError as error:
            if is_root:
                raise
            self._lost(cannot_be_read(error, folder))
            return []


def _child(folder: Path, file: Path) -> Path:
    """The file or folder in a folder that is, or holds, a file below it."""
    return folder / file.relative_to(folder).parts[0]


def _why_not(path: Path, *, is_root: bool) -> str:
    """Why a path is not looked into; empty if it is, as a path that was given always is."""
    if not is_root and path.name.startswith("."):
        return "is hidden"
    if not is_root and path.is_symlink() and not hub_folder.is_blob_link(path):
        return LINK
    if not path.is_file() and not path.is_dir():
        return "leads nowhere" if path.is_symlink() else "is not a file"
    return STATE if path.is_dir() and _is_state(path) else ""


def _is_state(folder: Path) -> bool:
    """Whether rankscope's trainer resumes from a folder: by its place, manifest or state file.

    A kill can leave one without a manifest.
    """
    if folder.name == "state" and (folder.parent / "config.toml").is_file():
        return True
    try:
        if str(read_json(folder / "MANIFEST.json").get("format", "")).startswith(STATE_FORMAT):
            return True
        return STATE_KEY in read_json(folder / "state.json")
    except RankscopeError:
        return False
