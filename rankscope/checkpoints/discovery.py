"""Finding runs in folders: which folders are checkpoints, and of which run and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.steps import step_of
from rankscope.errors import RankscopeError

SERIES_FOLDER = "checkpoints"  # where this package's trainer puts them inside a run


def open_run(path: str | Path, *, layout: str | None = None) -> Run:
    """Open the one run at ``path``: a folder of checkpoints, or a single checkpoint.

    Lists folders and reads step numbers; no header and no tensor is read yet.

    Raises
    ------
    RankscopeError
        If there is no run, or more than one: then `open_runs` opens them.
    """
    runs = open_runs([path], layout=layout)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs)
        raise RankscopeError(
            f"holds {len(runs)} runs ({names}): name one, or use open_runs", path=path
        )
    return runs[0]


def open_runs(paths: Iterable[str | Path], *, layout: str | None = None) -> list[Run]:
    """Open every run in and below the given folders.

    A run is a folder whose subfolders (or those of its folder ``checkpoints``) are checkpoints
    with a step; it is named by its path below the folder given. Links are not followed, so that a
    ``latest`` does not count a step twice.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    layout
        Read every checkpoint as this on-disk layout, instead of recognising it.

    Raises
    ------
    RankscopeError
        If a path does not exist or holds no checkpoint, or the layout is not known.
    """
    if layout is not None and layout not in LAYOUTS:
        raise RankscopeError(f"{layout!r} is no layout: known are {', '.join(sorted(LAYOUTS))}")
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RankscopeError("does not exist", path=path)
        if not path.is_dir():
            raise RankscopeError("is a file: give the folder that holds it", path=path)
        runs = list(_iter_runs(path.resolve(), path, layout))
        if not runs:
            raise RankscopeError(
                "holds no checkpoint: no model.safetensors, model.safetensors.index.json or "
                "adapter_config.json in it or below",
                path=path,
            )
        found.update({run.path.resolve(): run for run in runs})
    return _distinct(list(found.values()))


def _iter_runs(root: Path, folder: Path, layout: str | None) -> Iterator[Run]:
    """Runs in and below ``folder``, named relative to ``root``."""
    children = _subfolders(folder)
    series = [folder / SERIES_FOLDER] if folder / SERIES_FOLDER in children else []
    for place in [*series, folder]:
        checkpoints = _checkpoints(_subfolders(place), layout)
        if checkpoints:
            # Given the series of one of its runs, this finds the run, whose merges lie beside it.
            run = folder.resolve().parent if folder.name == SERIES_FOLDER else folder
            yield Run(run.name if run != folder else _name(root, folder), run, checkpoints)
            return
    own = _layout_of(folder, layout)
    if own is not None:
        step, source = step_of(folder) or (0, "order")
        yield Run(_name(root, folder), folder, (Checkpoint(folder, step, source, own),))
        return
    for child in children:
        yield from _iter_runs(root, child, layout)


def _checkpoints(folders: list[Path], layout: str | None) -> tuple[Checkpoint, ...]:
    """Those of the folders that are checkpoints of a known step, by step."""
    found: dict[int, Checkpoint] = {}
    for folder in folders:
        own = _layout_of(folder, layout)
        step = step_of(folder) if own is not None else None
        if own is None or step is None:
            continue
        if step[0] in found:
            raise RankscopeError(
                f"is step {step[0]}, and so is {found[step[0]].path.name}: remove one", path=folder
            )
        found[step[0]] = Checkpoint(folder, *step, own)
    return tuple(found[step] for step in sorted(found))


def _layout_of(folder: Path, forced: str | None) -> str | None:
    names = LAYOUTS if forced is None else {forced: LAYOUTS[forced]}
    return next((name for name, layout in names.items() if layout.recognises(folder)), None)


def _subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, by name, without hidden ones and links."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise RankscopeError(f"cannot be listed ({error.strerror})", path=folder) from error
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and not entry.is_symlink() and entry.is_dir()
    ]


def _name(root: Path, folder: Path) -> str:
    below = folder.resolve().relative_to(root).as_posix()
    return root.name if below == "." else below


def _distinct(runs: list[Run]) -> list[Run]:
    """The runs with names that differ: by their folders' paths where the short ones collide."""
    counts = Counter(run.name for run in runs)
    return [
        run
        if counts[run.name] == 1
        else Run(run.path.resolve().as_posix(), run.path, run.checkpoints)
        for run in runs
    ]
