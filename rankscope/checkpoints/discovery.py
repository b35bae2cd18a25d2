"""Finding runs in folders: what is a checkpoint, and of which run and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rankscope.checkpoints.families.family import read_family
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.errors import RankscopeError

SERIES_FOLDER = "checkpoints"  # where this package's trainer puts them inside a run


def open_run(
    path: str | Path,
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
) -> Run:
    """Open the one run at ``path``: a folder of checkpoints, or a single checkpoint.

    Lists folders and reads step numbers; no tensor is read yet. The options are those of
    `open_runs`.

    Raises
    ------
    RankscopeError
        If there is no run, or more than one: then `open_runs` opens them.
    """
    runs = open_runs([path], layout=layout, family=family, trust_pickle=trust_pickle)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs)
        raise RankscopeError(
            f"holds {len(runs)} runs ({names}): name one, or use open_runs", path=path
        )
    return runs[0]


def open_runs(
    paths: Iterable[str | Path],
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
) -> list[Run]:
    """Open every run in and below the given folders.

    A run is a folder whose subfolders (or those of its folder ``checkpoints``), or whose files, are
    checkpoints with a step; it is named by its path below the folder given. Links are not followed,
    so that a ``latest`` does not count a step twice.

    Parameters
    ----------
    paths
        Folders of a run, of a tree of runs, or of one checkpoint; or a checkpoint that is a file.
    layout
        Read every checkpoint as this on-disk layout, instead of recognising it.
    family
        Take every model for one of this family, by its name or by a TOML file that describes it.
    trust_pickle
        Let a pickle make objects of any class, which may run code that its writer chose.

    Raises
    ------
    RankscopeError
        If a path does not exist or holds no checkpoint, or the layout or family is not known.
    """
    if layout is not None and layout not in LAYOUTS:
        raise RankscopeError(f"{layout!r} is no layout: known are {', '.join(sorted(LAYOUTS))}")
    options = Options(layout, None if family is None else read_family(family), trust_pickle)
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise RankscopeError("does not exist", path=path)
        runs = list(_iter_runs(path.resolve(), path, options))
        if not runs:
            raise RankscopeError(_nothing_found(path, layout), path=path)
        found.update({run.path.resolve(): run for run in runs})
    return _distinct(list(found.values()))


def _nothing_found(path: Path, layout: str | None) -> str:
    what = "is a file that holds no weights" if path.is_file() else "holds no checkpoint"
    if layout is not None:
        return f"{what} of the layout {layout} ({LAYOUTS[layout].description})"
    return f"{what} that is known; `rankscope inspect --help` lists the layouts"


def _iter_runs(root: Path, folder: Path, options: Options) -> Iterator[Run]:
    """Runs in and below ``folder``, named relative to ``root``."""
    if folder.is_file():
        yield from _single(root, folder, options)
        return
    subfolders, files = _entries(folder)
    series = [folder / SERIES_FOLDER] if folder / SERIES_FOLDER in subfolders else []
    for place in [*series, folder]:
        checkpoints = _checkpoints(_entries(place)[0], options)
        if checkpoints:
            # Given the series of one of its runs, this finds the run, whose merges lie beside it.
            run = folder.resolve().parent if folder.name == SERIES_FOLDER else folder
            yield Run(run.name if run != folder else _name(root, folder), run, checkpoints)
            return
    if layout_of(folder, options.layout) is not None:
        yield from _single(root, folder, options)
        return
    checkpoints = _checkpoints(files, options)
    if checkpoints:
        yield Run(_name(root, folder), folder, checkpoints)
        return
    for place in (*files, *subfolders):
        yield from _iter_runs(root, place, options)


def _single(root: Path, path: Path, options: Options) -> Iterator[Run]:
    """The run of one checkpoint, if the path is one."""
    own = layout_of(path, options.layout)
    if own is not None:
        step, source = LAYOUTS[own].step(path) or (0, "order")
        yield Run(_name(root, path), path, (Checkpoint(path, step, source, own, options),))


def _checkpoints(paths: list[Path], options: Options) -> tuple[Checkpoint, ...]:
    """Those of the folders or files that are checkpoints of a known step, by step."""
    found: dict[int, Checkpoint] = {}
    for path in paths:
        own = layout_of(path, options.layout)
        step = LAYOUTS[own].step(path) if own is not None else None
        if own is None or step is None:
            continue
        if step[0] in found:
            raise RankscopeError(
                f"is step {step[0]}, and so is {found[step[0]].path.name}: remove one", path=path
            )
        found[step[0]] = Checkpoint(path, *step, own, options)
    return tuple(found[step] for step in sorted(found))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, by name, without hidden ones and links."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise RankscopeError(f"cannot be listed ({error.strerror})", path=folder) from error
    seen = [entry for entry in entries if not (entry.name.startswith(".") or entry.is_symlink())]
    return [e for e in seen if e.is_dir()], [e for e in seen if e.is_file()]


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
