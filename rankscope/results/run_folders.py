"""The folder of a run in a store: different for every run, even where case does not count.

File systems of Windows and macOS treat ``Full`` and ``full`` as the same. So a name with capitals
gets a digest. Earlier versions did not do that: their folders are read, and renamed before anything
is written to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rankscope.durable import rename_folder, safe_name
from rankscope.results.columns import ORIGINS_FOLDER, STORES


def run_folder_name(run: str) -> str:
    """Name of a run's folder in every store: a single path component."""
    return safe_name(run, in_any_case=True)


def run_folder(store: Path, run: str) -> Path:
    """Folder of a run in a store, or the one that an earlier version made, if that is there."""
    folder = store / run_folder_name(run)
    older = safe_name(run)
    if folder.name != older and not folder.is_dir() and _has(store, older):
        return store / older
    return folder


def rename_older(out: Path, runs: Iterable[str]) -> None:
    """Give folders of these runs in a results folder their present names."""
    for run in runs:
        older, name = safe_name(run), run_folder_name(run)
        if older == name:
            continue
        for store in (out / one for one in (*STORES, ORIGINS_FOLDER)):
            if not (store / name).exists() and _has(store, older):
                with suppress(
                    OSError
                ):  # another call was first, or it may not: it is read as it is
                    rename_folder(store / older, store / name)


def _has(store: Path, name: str) -> bool:
    """Whether a folder has exactly this name, case included."""
    try:
        return any(one.name == name for one in store.iterdir())
    except OSError:
        return False
