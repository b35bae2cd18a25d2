"""Finding runs in folders: what is a checkpoint, and of which run and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints import hub_cache
from rankscope.checkpoints.families.family import read_family
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.series import find_checkpoints, find_series
from rankscope.checkpoints.survey import Place, Survey
from rankscope.errors import RankscopeError

SERIES_FOLDERS = ("checkpoints", "checkpoint")  # where trainers put them inside a run


def open_run(
    path: str | Path,
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Run:
    """Open the one run at ``path``: a folder of checkpoints, or a single checkpoint.

    Lists folders and reads step numbers; no tensor is read yet. The options are those of
    `open_runs`.

    Raises
    ------
    RankscopeError
        If there is no run, or more than one: then `open_runs` opens them.
    """
    runs = open_runs([path], layout=layout, family=family, trust_pickle=trust_pickle, base=base)
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
    base: str | Path | None = None,
) -> list[Run]:
    """Open every run in and below the given folders.

    A run is a folder whose subfolders or files (or those of its folder ``checkpoints``) are
    checkpoints with a step, or in a series by their names (`rankscope.checkpoints.series` tells
    which); it is named by its path below the folder given. Links in it are not followed, so that a
    ``latest`` does not count a step twice.

    Where a training went in stages (``stage1-step1000``, ``anneal_iter_0001000``), each stage is a
    run ``RUN/STAGE``: steps are counted anew in each, and an update from the last step of one to
    the same number of another would mean nothing.

    In a cache of the Hugging Face hub, a model is a run ``ORG/NAME``, whose steps are in the names
    of its branches (`rankscope.checkpoints.hub_cache`).

    Parameters
    ----------
    paths
        Folders of a run, of a tree of runs, or of one checkpoint; or a checkpoint that is a file;
        or ``ORG/NAME`` of a model that is in the hub's cache, where there is no such folder.
    layout
        Read every checkpoint as this on-disk layout, instead of recognising it.
    family
        Take every model for one of this family, by its name or by a TOML file that describes it.
    trust_pickle
        Let a pickle make objects of any class, which may run code that its writer chose.
    base
        Folder of the model that adapters were put on, instead of looking for it.

    Raises
    ------
    RankscopeError
        If a path does not exist or holds no checkpoint, or the layout or family is not known.
    """
    if layout is not None and layout not in LAYOUTS:
        raise RankscopeError(f"{layout!r} is no layout: known are {', '.join(sorted(LAYOUTS))}")
    options = Options(
        layout,
        None if family is None else read_family(family),
        trust_pickle,
        None if base is None else Path(base),
    )
    found: dict[tuple[Path, str | None], Run] = {}
    for path in map(_followed, map(Path, paths)):
        runs = list(_iter_runs(path.resolve(), path, options))
        if not runs:
            raise RankscopeError(_nothing_found(path, layout), path=path)
        found.update({(run.path.resolve(), run.stage): run for run in runs})
    return _distinct(list(found.values()))


def survey(
    paths: Iterable[str | Path],
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Survey:
    """Open every run in and below the given folders, and say what became of everything there."""
    runs = open_runs(paths, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    places = [Place(c.path, "step", run.name, c.step) for run in runs for c in run]
    return Survey(tuple(runs), tuple(places))


def _followed(path: Path) -> Path:
    """Where a path that was given leads to: a link's target, whose name may state the step."""
    if path.exists():
        # The target of a link into the blobs of the hub's cache is named by a hash.
        return path.resolve() if path.is_symlink() and not hub_cache.is_blob_link(path) else path
    cached = hub_cache.cached_model(path)
    if cached is not None:
        return cached
    where = f", nor does {hub_cache.cache_folder()} hold it" if hub_cache.is_name(path) else ""
    raise RankscopeError(f"does not exist{where}", path=path)


def _nothing_found(path: Path, layout: str | None) -> str:
    what = "is no file of weights" if path.is_file() else "holds no checkpoint"
    if layout is not None:
        return f"{what} of the layout {layout} ({LAYOUTS[layout].description})"
    flaw = next(filter(None, (known.flaw(path) for known in LAYOUTS.values())), "")
    if flaw:
        return flaw
    return f"{what} that is known; `rankscope inspect --help` lists the layouts"


def _iter_runs(root: Path, folder: Path, options: Options) -> Iterator[Run]:
    """Runs in and below ``folder``, named relative to ``root``."""
    real = folder.resolve()
    if folder.is_file():
        yield from _single(root, folder, options)
    elif hub_cache.is_model(real):
        yield from _iter_hub_runs(folder, folder, options)
    elif real.name == "snapshots" and hub_cache.is_model(real.parent):
        yield from _iter_hub_runs(real.parent, real.parent, options)
    elif real.parent.name == "snapshots" and hub_cache.is_model(real.parent.parent):
        yield from _iter_hub_runs(real, real.parent.parent, options)
    else:
        yield from _iter_folder_runs(root, folder, options)


def _iter_folder_runs(root: Path, folder: Path, options: Options) -> Iterator[Run]:
    own = layout_of(folder, options.layout)
    subfolders, files = _entries(folder)
    inside = [folder / name for name in SERIES_FOLDERS if folder / name in subfolders]
    inner = [paths for place in inside for paths in _entries(place)]
    # The files of a checkpoint are no checkpoints.
    for paths in (*inner, subfolders, files if own is None else []):
        series = find_series(find_checkpoints(paths, options), options)
        if series:
            # Given the series of one of its runs, this finds the run, whose merges lie beside it.
            run = folder.resolve().parent if folder.name in SERIES_FOLDERS else folder
            yield from _staged(run.name if run != folder else _name(root, folder), run, series)
            return
    if own is not None:
        yield from _single(root, folder, options)
        return
    for place in (*files, *subfolders):
        yield from _iter_runs(root, place, options)


def _iter_hub_runs(place: Path, model: Path, options: Options) -> Iterator[Run]:
    """Runs of a model in the hub's cache, or of the one snapshot of it that is the place."""
    name = hub_cache.model_name(model.resolve())
    snapshots = hub_cache.snapshots_of(model) if place == model else [place]
    layouts = {path: layout_of(path, options.layout) for path in snapshots}
    whole = [(path, layout) for path, layout in layouts.items() if layout is not None]
    found = hub_cache.find_snapshots(model, whole, options)
    series = find_series(found, options)
    yield from _staged(name, place, series)
    for one in found if not series else []:
        yield Run(
            name if one.name == "main" else f"{name}@{one.name}", one.path, (one.alone(options),)
        )
    for path in [path for path, layout in layouts.items() if layout is None]:
        # A repository may hold its checkpoints in folders.
        for run in _iter_folder_runs(path.resolve(), path, options):
            below = "" if run.path == path else f"/{run.name}"
            yield replace(run, name=f"{name}@{path.name[:12]}{below}")


def _staged(
    name: str, path: Path, series: dict[str | None, tuple[Checkpoint, ...]]
) -> Iterator[Run]:
    for stage, checkpoints in series.items():
        yield Run(name if stage is None else f"{name}/{stage}", path, checkpoints, stage)


def _single(root: Path, path: Path, options: Options) -> Iterator[Run]:
    """The run of one checkpoint, if the path is one."""
    for one in find_checkpoints([path], options):
        yield Run(_name(root, path), path, (one.alone(options),))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, by name, without hidden ones and links.

    The files of a snapshot in the hub's cache are links, and count.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise RankscopeError(f"cannot be listed ({error.strerror})", path=folder) from error
    seen = [entry for entry in entries if not entry.name.startswith(".")]
    plain = [entry for entry in seen if not entry.is_symlink()]
    files = [entry for entry in seen if not entry.is_symlink() or hub_cache.is_blob_link(entry)]
    return [e for e in plain if e.is_dir()], [e for e in files if e.is_file()]


def _name(root: Path, folder: Path) -> str:
    below = folder.resolve().relative_to(root).as_posix()
    return root.name if below == "." else below


def _distinct(runs: list[Run]) -> list[Run]:
    """The runs with names that differ: by their folders' paths where the short ones collide."""
    counts = Counter(run.name for run in runs)
    return [run if counts[run.name] == 1 else replace(run, name=_full_name(run)) for run in runs]


def _full_name(run: Run) -> str:
    path = run.path.resolve().as_posix()
    return path if run.stage is None else f"{path}/{run.stage}"
