"""The folders and branches in the cache of the Hugging Face hub, read offline.

The folder of a model, ``models--ORG--NAME``, holds ``refs/BRANCH``, a file with a commit, and
``snapshots/COMMIT``, whose files are links into ``blobs``. Copies of caches are often incomplete:
links are broken, branches point to nothing, or ``refs`` is missing. What is there is read anyway.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rankscope.addresses import HUB
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError, cannot_be_read
from rankscope.platforms import hub_home

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
MAX_REF_BYTES = 256


def cache_folder() -> Path:
    """Folder in which the hub's tools keep models, by the environment variables that they read."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    return hub_home() / "hub"


def is_name(path: Path) -> bool:
    """Whether a path may be meant as the name of a model on the hub, ``ORG/NAME``."""
    return NAME.fullmatch(path.as_posix()) is not None and ".." not in path.name


def cached_model(name: Path) -> Path | None:
    """Folder of the model ``ORG/NAME`` in the cache; None if it is not there."""
    folder = cache_folder() / (HUB + name.as_posix().replace("/", "--"))
    return folder if is_name(name) and is_model(folder) else None


def is_model(folder: Path) -> bool:
    """Whether a folder is that of a model in a cache, even if it was renamed."""
    named = folder.name.startswith(HUB) or (folder / "refs").is_dir()
    return named and (folder / "snapshots").is_dir()


def model_name(folder: Path) -> str:
    """Name of a model on the hub, from the name of its folder."""
    return folder.name.removeprefix(HUB).replace("--", "/")


def model_around(path: Path) -> tuple[Path, Path] | None:
    """The folder to read in a cache, and that of its model; None if the path is not in a cache.

    The folder is that of the model, or the one snapshot that the path leads to.
    """
    real = path.resolve()
    if is_model(real):
        return path, path
    if real.name == "snapshots" and is_model(real.parent):
        return real.parent, real.parent
    if real.parent.name == "snapshots" and is_model(real.parent.parent):
        return real, real.parent.parent
    return None


def is_blob_link(path: Path) -> bool:
    """Whether a path is a link into the blobs of a cache, as the files of a snapshot are."""
    return path.is_symlink() and "blobs" in path.readlink().parts


def snapshots_of(model: Path) -> list[Path]:
    """Folders of the snapshots that are there, sorted by commit.

    Raises
    ------
    RankscopeError
        If they cannot be listed.
    """
    try:
        return sorted(path for path in (model / "snapshots").iterdir() if path.is_dir())
    except OSError as error:
        raise cannot_be_read(error, model) from error


def read_branches(model: Path) -> dict[str, list[str]]:
    """The branches of each commit, sorted by name; branches that cannot be read are ignored."""
    branches: dict[str, list[str]] = {}
    for folder, _, files in os.walk(model / "refs"):
        for path in (Path(folder, name) for name in files):
            branch = path.relative_to(model / "refs").as_posix()
            branches.setdefault(commit_in(path), []).append(branch)
    return {commit: sorted(names) for commit, names in branches.items() if commit}


def commit_in(path: Path) -> str:
    """The commit in the file of a branch; empty if the file is missing or damaged."""
    try:
        with open_regular(path) as (file, _):
            return file.read(MAX_REF_BYTES).decode("ascii", errors="replace").strip()
    except (RankscopeError, OSError):
        return ""
