"""Where the base model of an adapter is on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rankscope.addresses import HUB, is_stand_in
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.hub_folder import cache_folder, commit_in
from rankscope.errors import WrongSettingError, printable

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a repository on the hub
COMMIT = re.compile(r"[0-9a-f]{40}")


def base_named(adapter: Path) -> str:
    """What the config of an adapter calls its base model; empty if it names none.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged.
    """
    stated = read_json(adapter / CONFIG).get("base_model_name_or_path")
    return stated if isinstance(stated, str) else ""


def base_folder(adapter: Path, given: Path | None = None) -> Path | None:
    """Folder with the ``config.json`` of the base model; None if it is not on this machine.

    It is the given folder; else the path in the adapter's config, relative to the adapter, to each
    folder above it, or to the working folder; else that name in the cache of the hub. Nothing is
    downloaded. A folder that the adapter itself is in is not the base, but a run that is called
    like its base. If another model has that name in a folder above, it is taken: `Contents.base`
    says which folder was. An adapter elsewhere does not lead to folders of this machine.

    Raises
    ------
    WrongSettingError
        If the given folder is not that of a model.
    RankscopeError
        If the adapter's config is damaged.
    """
    if given is not None:
        if not _is_there(given):
            message = "holds no config.json, so it is not a model: choose another `base`"
            raise WrongSettingError(message, path=given)
        return given
    stated, revision = base_named(adapter), read_json(adapter / CONFIG).get("revision")
    if not stated:
        return None
    for folder in _iter_folders(adapter, stated):
        if _is_there(folder) and not _holds(folder, adapter) and _may_lead_to(adapter, folder):
            return folder
    return _cached(stated, revision if isinstance(revision, str) else "main")


def missing_base(adapter: Path, found: Path | None = None, misfit: str = "") -> Skip:
    """A note on an adapter whose base model, or the weights of that, was not found.

    Parameters
    ----------
    found
        The folder that was found under its name.
    misfit
        Why that folder is not its base model.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged.
    """
    named = base_named(adapter)
    called = f"its base model {printable(named, limit=90)!r}" if named else "its base model"
    reason = "is not on this machine" if named else "is named nowhere"
    if found is not None:
        folder = printable(str(found), limit=90)
        reason = f"is not {folder}: {misfit}" if misfit else f"has no readable weights in {folder}"
    message = (
        f"is an adapter, and {called} {reason}; its weights are not measured: download the model, "
        "put it where the adapter's config says, or give its folder as `base`"
    )
    return Skip(str(adapter), "", "base-missing", message)


def _iter_folders(adapter: Path, stated: str) -> Iterator[Path]:
    """Folders that a path may lead to: from the adapter, from each folder above it, from here."""
    yield adapter / stated
    if not Path(stated).is_absolute():
        yield from (above / stated for above in adapter.absolute().parents)
    yield Path(stated)


def _may_lead_to(adapter: Path, folder: Path) -> bool:
    """Whether an adapter may name a folder: one that lies elsewhere names none on this machine."""
    return not is_stand_in(adapter) or is_stand_in(folder.resolve())


def _holds(folder: Path, adapter: Path) -> bool:
    try:
        return adapter.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def _cached(name: str, revision: str) -> Path | None:
    """Snapshot of a model in the cache of the hub; None if it is not there."""
    if not NAME.fullmatch(name) or ".." in (*name.split("/"), *revision.split("/")):
        return None
    repository = cache_folder() / f"{HUB}{name.replace('/', '--')}"
    commit = commit_in(repository / "refs" / revision) or revision
    snapshot = repository / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and _is_there(snapshot) else None


def _is_there(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except (OSError, ValueError):  # a name that is too long, or a folder without permission
        return False
