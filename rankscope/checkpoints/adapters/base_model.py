"""Where the model that an adapter belongs to lies on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.hub_folder import MODEL, cache_folder, commit_in
from rankscope.errors import RankscopeError, printable

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a repository on the hub
COMMIT = re.compile(r"[0-9a-f]{40}")


def base_named(adapter: Path) -> str:
    """What the config of an adapter calls its base model; empty if nothing.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged.
    """
    stated = read_json(adapter / CONFIG).get("base_model_name_or_path")
    return stated if isinstance(stated, str) else ""


def base_folder(adapter: Path, given: Path | None = None) -> Path | None:
    """Folder with the ``config.json`` of the base model; None if it is not on this machine.

    The one that is given; else the path that the adapter's config states, taken from the adapter,
    from each folder above it, and from the working folder, since it is the one that the training
    was given; then that name in the cache of the hub. Nothing is downloaded. A folder in which the
    adapter itself lies is a run that is called like its base, and not the base. Where another
    model has the same name in a folder above, it is taken: `Contents.base` says which.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged, or what is given is not the folder of a model.
    """
    if given is not None:
        if not _is_there(given):
            raise RankscopeError("holds no config.json, so it is not a base model", path=given)
        return given
    stated, revision = base_named(adapter), read_json(adapter / CONFIG).get("revision")
    if not stated:
        return None
    for folder in _places(adapter, stated):
        if _is_there(folder) and not _holds(folder, adapter):
            return folder
    return _cached(stated, revision if isinstance(revision, str) else "main")


def missing_base(adapter: Path, found: Path | None = None) -> Skip:
    """A line on an adapter whose base model is not there, or not its weights.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged.
    """
    named, end = base_named(adapter), "download the model, put it where the adapter's config says, "
    called = f"its base model {printable(named, limit=120)!r}" if named else "its base model"
    reason = "is not on this machine" if named else "is named nowhere"
    if found is not None:
        reason = f"has no weights that are read ({printable(str(found), limit=120)})"
    message = (
        f"is an adapter, and {called} {reason}: the weights that it makes are not measured; {end}"
        "or give its folder as the base"
    )
    return Skip(str(adapter), "", "base-missing", message)


def _places(adapter: Path, stated: str) -> Iterator[Path]:
    """Where a path may lead to: from the adapter, from what is above it, from here."""
    yield adapter / stated
    if not Path(stated).is_absolute():
        yield from (above / stated for above in adapter.absolute().parents)
    yield Path(stated)


def _holds(folder: Path, adapter: Path) -> bool:
    try:
        return adapter.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def _cached(name: str, revision: str) -> Path | None:
    """Snapshot of a repository in the cache of the hub."""
    if not NAME.fullmatch(name) or ".." in (*name.split("/"), *revision.split("/")):
        return None
    repository = cache_folder() / f"{MODEL}{name.replace('/', '--')}"
    commit = commit_in(repository / "refs" / revision) or revision
    snapshot = repository / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and _is_there(snapshot) else None


def _is_there(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):  # a name that is too long, a folder that may not be entered
        return False
