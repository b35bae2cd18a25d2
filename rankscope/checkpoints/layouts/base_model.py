"""Where the model that an adapter belongs to lies on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts.lora_config import CONFIG

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a repository on the hub
COMMIT = re.compile(r"[0-9a-f]{40}")


def base_folder(adapter: Path) -> Path | None:
    """Folder with the ``config.json`` of the base model; None if it is not on this machine.

    The path that the adapter's config states is taken from the adapter, then from the working
    folder, since it is the one that the training was given; then for a name in the cache of the
    hub. Nothing is downloaded.

    Raises
    ------
    RankscopeError
        If the adapter's config is damaged.
    """
    config = read_json(adapter / CONFIG)
    stated, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(stated, str) or not stated:
        return None
    for folder in (adapter / stated, Path(stated)):
        if _is_there(folder):
            return folder
    return _cached(stated, revision if isinstance(revision, str) else "main")


def _cached(name: str, revision: str) -> Path | None:
    """Snapshot of a repository in the cache of the hub."""
    if not NAME.fullmatch(name) or ".." in (*name.split("/"), *revision.split("/")):
        return None
    from rankscope.checkpoints.hub_cache import cache_folder  # here, since it needs the layouts

    repository = cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        commit = (repository / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        commit = revision
    snapshot = repository / "snapshots" / commit
    return snapshot if COMMIT.fullmatch(commit) and _is_there(snapshot) else None


def _is_there(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False
