"""Stand-ins of models on the hub, laid out as the hub's own cache is, which is read as such.

The files of a commit are links to blobs, so that files which several steps share are fetched once,
and steps with the same weights are noticed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from rankscope import durable
from rankscope.addresses import ELSEWHERE, HUB, WHOLE_MODEL
from rankscope.checkpoints.remote import ledger
from rankscope.checkpoints.remote.headers import fetch_headers
from rankscope.checkpoints.remote.hollow_files import can_be_file, can_be_path, lay_out
from rankscope.checkpoints.remote.hub_listing import HubAddress, list_model
from rankscope.checkpoints.remote.listings import (
    Listing,
    place_of,
    read_tree,
    write_listing,
    write_tree,
)
from rankscope.checkpoints.remote.objects import Entry
from rankscope.checkpoints.remote.range_cache import cache_root
from rankscope.errors import WrongSettingError


def path_of(address: HubAddress) -> Path:
    """Where the stand-in of an address is, or would be."""
    model = _model(address)
    if not address.below:
        return model
    branch = model / "refs" / (address.revision or "main")
    commit = branch.read_text() if branch.is_file() else address.revision or "main"
    return model / "snapshots" / commit / address.below


def laid_out(address: HubAddress) -> Path:
    """The stand-in of an address, once its revisions and their files have been listed."""
    root, model = cache_root(), _model(address)
    listing = list_model(address, lambda commit: read_tree(root, f"{address.model}@{commit}"))
    trees = {
        commit: {file: one for file, one in tree.items() if can_be_file(file, one)}
        for commit, tree in listing.trees.items()
    }
    for commit, tree in trees.items():
        write_tree(root, f"{address.model}@{commit}", tree)
    place = place_of(root, model)
    blobs = {f"blobs/{one.digest}": one for tree in trees.values() for one in tree.values()}
    files = {
        f"snapshots/{commit}/{file}": one for commit in trees for file, one in trees[commit].items()
    }
    write_listing(root, place, Listing("hf", blobs | files))
    ledger.begin(root, place)
    lay_out(model, blobs)
    _link_snapshots(model, trees)
    _write_branches(model, listing.commits)
    fetch_headers(model, root, place, files)
    path = path_of(address)
    if not path.exists():
        raise WrongSettingError("is not in that revision of the model", path=path)
    return path


def _model(address: HubAddress) -> Path:
    """Folder of the model: each revision that is asked for by itself has its own."""
    view = quote(address.revision, safe="") or ("main" if address.below else WHOLE_MODEL)
    name = HUB + address.model.replace("/", "--")
    return cache_root().joinpath(ELSEWHERE, "hf", view, name)


def _link_snapshots(model: Path, trees: Mapping[str, Mapping[str, Entry]]) -> None:
    """Link the files of each commit to their blobs, and remove other commits.

    Where links may not be made, as on Windows for most users, the files are stand-ins themselves.
    """
    durable.make_folder(model / "snapshots")
    for commit, tree in trees.items():
        for file, entry in tree.items():
            path = model / "snapshots" / commit / file
            target = "../" * (2 + file.count("/")) + f"blobs/{entry.digest}"
            if path.is_symlink() and os.readlink(path) == target:  # noqa: PTH115, text is compared
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # also a stand-in: links may be allowed by now
            with contextlib.suppress(FileExistsError):  # another process lays it out too
                _link(path, target, entry)
    for snapshot in (model / "snapshots").iterdir():
        if snapshot.name not in trees:
            shutil.rmtree(snapshot, ignore_errors=True)


def _link(path: Path, target: str, entry: Entry) -> None:
    try:
        path.symlink_to(target)
    except FileExistsError:
        raise
    except OSError:
        durable.hollow_file(path, size=entry.size, modified=entry.stamp)


def _write_branches(model: Path, commits: Mapping[str, str]) -> None:
    """Write the commit of each name; a commit that was asked for is not a name."""
    wanted = {
        model / "refs" / _file_name(name): commit
        for name, commit in commits.items()
        if name != commit
    }
    durable.make_folder(model / "refs")
    for folder, _, names in os.walk(model / "refs"):
        for path in (Path(folder, name) for name in names):
            if path not in wanted:
                path.unlink(missing_ok=True)
    for path, commit in wanted.items():
        if not path.is_file() or path.read_text() != commit:
            durable.write_file(path, commit.encode())


def _file_name(name: str) -> str:
    """A name as a path below the folder of branches: titles of commits may hold anything."""
    return name if can_be_path(name.split("/")) else name.replace("/", "-").replace("\0", "")[:60]
