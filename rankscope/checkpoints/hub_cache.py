"""The cache of the Hugging Face hub, read offline: which snapshot of a model is of which step.

A model's folder ``models--ORG--NAME`` holds ``refs/BRANCH``, a file with a commit, and
``snapshots/COMMIT``, whose files are links into ``blobs``. Copies of caches are often partial:
links are broken, branches point to nothing, or ``refs`` is gone. What is there is read all the
same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.series import Found, Series
from rankscope.checkpoints.series_titles import natural
from rankscope.checkpoints.steps import stage_in_name, step_in_name
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
            branches.setdefault(_commit(path), []).append(branch)
    return {commit: sorted(names) for commit, names in branches.items() if commit}


def _commit(path: Path) -> str:
    """Commit in a branch's file; empty if the file is damaged."""
    try:
        with open_regular(path) as (file, _):
            return file.read(MAX_REF_BYTES).decode("ascii", errors="replace").strip()
    except (RankscopeError, OSError):
        return ""


def series_of_snapshots(found: Iterable[Found]) -> tuple[list[Series], list[Skip]]:
    """Checkpoints of each stage of a model's training, the stages in the order of their names.

    Of two that state the same step the first is taken, and a skip names the other.
    """
    stages: dict[str | None, Series] = {}
    skips = []
    for one in found:
        if one.step is not None:
            step, source = one.step
            series = stages.setdefault(one.stage, Series({}, stage=one.stage))
            if step in series.members:
                message = f"is step {step}, and so is {series.members[step][0].name}"
                skips.append(Skip(str(one.path), "", "duplicate-step", f"{message}: left out"))
            else:
                series.members[step] = (one, source)
    for stage, series in stages.items():
        series.title = stage or ""
    return [
        stages[stage] for stage in sorted(stages, key=lambda stage: natural(stage or ""))
    ], skips


def find_snapshots(model: Path, checkpoints: Iterable[tuple[Path, str]]) -> list[Found]:
    """Checkpoints of a model, from those of its snapshots that are of a layout (path, layout).

    The step is in the name of the branch. One commit may have several branches, each of which is a
    checkpoint if it states a step. Where any does, branches that do not are left out: ``main`` is
    mostly the last step once more. A snapshot that no branch points to was replaced, or downloaded
    by its commit: it counts if a file in it tells a step that no branch has. Where nothing tells a
    step, the branches are what there is to compare; without branches, the snapshots.

    Raises
    ------
    RankscopeError
        If a file that tells the step is damaged.
    """
    branches = read_branches(model)
    stated: list[Found] = []
    named: list[Found] = []
    nameless: list[Found] = []
    for path, layout in checkpoints:
        names = branches.get(path.name, [])
        stating = [
            Found(path, name, layout, (step, "branch"), stage_in_name(name))
            for name in names
            if (step := step_in_name(name)) is not None
        ]
        stated += stating
        if not names:
            nameless.append(Found(path, path.name[:12], layout, LAYOUTS[layout].step(path)))
        elif not stating:
            # Some hubs have a branch for each run, and the steps in the files alone.
            name = "main" if "main" in names else names[0]
            stage = None if name == "main" else name
            named.append(Found(path, name, layout, LAYOUTS[layout].step(path), stage))
    kept = stated or named
    taken = {(one.stage, one.step[0]) for one in kept if one.step}
    if not kept:
        return nameless
    if not taken:
        return kept
    return kept + [one for one in nameless if one.step and (None, one.step[0]) not in taken]
