"""The cache of the Hugging Face hub on this machine, read offline: its folders and branches.

A model's folder ``models--ORG--NAME`` holds ``refs/BRANCH``, a file with a commit, and
``snapshots/COMMIT``, whose files are links into ``blobs``. Copies of caches are often partial:
links are broken, branches point to nothing, or ``refs`` is gone. What is there is read all the
same.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError

MODEL = "models--"
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
MAX_REF_BYTES = 256


def cache_folder() -> Path:
    """Folder in which the hub's own tools keep models, by the environment variables they follow."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or caches / "huggingface")
    return (home / "hub").expanduser()


def is_name(path: Path) -> bool:
    """Whether a path could be meant as a model's name on the hub, ``ORG/NAME``."""
    return NAME.fullmatch(path.as_posix()) is not None and ".." not in path.name


def cached_model(name: Path) -> Path | None:
    """Folder of the model ``ORG/NAME`` in the cache, if it is there."""
    folder = cache_folder() / (MODEL + name.as_posix().replace("/", "--"))
    return folder if is_name(name) and is_model(folder) else None


def is_model(folder: Path) -> bool:
    """Whether a folder is that of a model in a cache, or such a folder renamed."""
    named = folder.name.startswith(MODEL) or (folder / "refs").is_dir()
    return named and (folder / "snapshots").is_dir()


def model_name(folder: Path) -> str:
    """Name of a model on the hub, from that of its folder."""
    return folder.name.removeprefix(MODEL).replace("--", "/")


def model_around(path: Path) -> tuple[Path, Path] | None:
    """What is to be read of a cache at a path, and its model: all snapshots, or the one given."""
    real = path.resolve()
    if is_model(real):
        return path, path
    if real.name == "snapshots" and is_model(real.parent):
        return real.parent, real.parent
    if real.parent.name == "snapshots" and is_model(real.parent.parent):
        return real, real.parent.parent
    return None


def is_blob_link(path: Path) -> bool:
    """Whether a path is one of the links that a snapshot's files are."""
    return path.is_symlink() and "blobs" in path.readlink().parts


def snapshots_of(model: Path) -> list[Path]:
    """Folders of the snapshots that are there, by commit.

    Raises
    ------
    RankscopeError
        If they cannot be listed.
    """
    try:
        return sorted(path for path in (model / "snapshots").iterdir() if path.is_dir())
    except OSError as error:
        raise RankscopeError(f"cannot be listed ({error.strerror})", path=model) from error


def read_branches(model: Path) -> dict[str, list[str]]:
    """Branches that point to each commit, by name; branches that cannot be read are passed over."""
    branches: dict[str, list[str]] = {}
    for place, _, files in os.walk(model / "refs"):
        for path in (Path(place, name) for name in files):
            branch = path.relative_to(model / "refs").as_posix()
            branches.setdefault(commit_in(path), []).append(branch)
    return {commit: sorted(names) for commit, names in branches.items() if commit}


def commit_in(path: Path) -> str:
    """Commit that a branch's file holds; empty if the file is not there or damaged."""
    try:
        with open_regular(path) as (file, _):
            return file.read(MAX_REF_BYTES).decode("ascii", errors="replace").strip()
    except (RankscopeError, OSError):
        return ""
