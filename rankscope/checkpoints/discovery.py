"""Finding the runs in folders: the door of this room.

`survey` reads the tree of every path, then the runs in it, then what became of everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rankscope.addresses import is_address
from rankscope.checkpoints import hub_folder
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.files.weights_file import refusal
from rankscope.checkpoints.folder_tree import LINK, Node, Walk
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.links import links_within
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Place, Survey, fault_of
from rankscope.checkpoints.training_log import iter_log_notes
from rankscope.checkpoints.tree_places import iter_lost_steps, iter_notes, iter_places
from rankscope.checkpoints.tree_runs import TreeRuns, as_text
from rankscope.errors import (
    RankscopeError,
    WrongSettingError,
    cannot_be_read,
    closest_first,
    does_not_exist,
    printable,
)

MOST = 400  # characters of a list in an error


def open_run(
    path: str | Path,
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Run:
    """Open the one run at ``path``: a folder of checkpoints, or a single checkpoint.

    Lists folders and reads step numbers, but no tensors. The options are those of `survey`.

    Raises
    ------
    RankscopeError
        If there is no run, or more than one; `open_runs` opens several.

    Examples
    --------
    >>> import rankscope as rs
    >>> run = rs.open_run("ckpts/relora")
    >>> run.steps
    (0, 10, 20, 30)
    >>> run[10].contents.parameters["model.layers.0.self_attn.q_proj.weight"].role
    'q'
    """
    runs = open_runs([path], layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:5])
        more = ", …" if len(runs) > 5 else ""
        raise RankscopeError(
            f"holds {len(runs)} runs ({names}{more}): give the path of one", path=path
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

    These are the runs that `survey` finds, which also reports everything else. The options are the
    same.

    Raises
    ------
    RankscopeError
        If a path does not exist or holds no checkpoint, or the layout or family is unknown.

    Examples
    --------
    >>> import rankscope as rs
    >>> for run in rs.open_runs(["ckpts"]):
    ...     print(run)
    Run('full', 3 checkpoints, steps 5, 10, 100)
    Run('relora', 4 checkpoints, steps 0, 10, 20, 30)
    """
    surveyed = survey(paths, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    return list(surveyed.runs)


def survey(
    paths: Iterable[str | Path],
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Survey:
    """Open every run in and below the given folders, and say what became of everything else.

    A run is a series of checkpoints, as the names of siblings say together
    (`rankscope.checkpoints.sibling_names`). They are in a folder or in its folder ``checkpoints``;
    each checkpoint may be a few folders below the folder of its step. A run is called by its path
    below the given folder, with another word if a folder holds several: ``RUN/actor``, ``RUN/ema``,
    ``RUN/stage1``. Links are not followed, so that ``latest`` does not count a step twice.
    rankscope's results are not looked into.

    In a cache of the Hugging Face hub, a model is a run ``ORG/NAME``, and the names of its branches
    state the steps (`rankscope.checkpoints.hub_folder`).

    Parameters
    ----------
    paths
        Folders of a run, of a tree of runs, or of one checkpoint; a checkpoint that is a file; or
        ``ORG/NAME`` of a model in the hub's cache, if there is no folder of that name.
    layout
        Read every checkpoint as this on-disk layout, instead of recognising the layout.
    family
        Read every model as one of this family, given by name or as a TOML file that describes it.
    trust_pickle
        Let a pickle make objects of any class, which may run code that its writer chose.
    base
        Folder of the model that adapters were put on, instead of looking for it.

    Raises
    ------
    WrongSettingError
        If a path does not exist, the base is not a folder, or the layout or family is unknown.
    RankscopeError
        If a path holds no checkpoint.
    """
    if layout is not None and layout not in LAYOUTS:
        known = closest_first(layout, sorted(LAYOUTS))
        raise WrongSettingError(f"{layout!r} is not a layout: choose from {known}")
    base = None if base is None else _one_snapshot(_here(base))
    if base is not None and not base.is_dir():
        what = "is a file" if base.exists() else "does not exist"
        raise WrongSettingError(f"{what}: `base` must be the folder of a model", path=base)
    options = Options(
        layout,
        None if family is None else read_family(family),
        trust_pickle,
        base,
    )
    runs: dict[tuple[Path, str | None], Run] = {}
    places: dict[Path, Place] = {}
    skips: dict[Skip, None] = {}
    notes: dict[Skip, None] = {}
    for path in map(_followed, map(Path, paths)):
        try:
            with links_within(path, path):
                surveyed = _surveyed(path, replace(options, within=path))
        except OSError as error:
            raise cannot_be_read(error, path) from error
        runs.update({(run.path.resolve(), run.stage): run for run in surveyed.runs})
        places.update({place.path: place for place in surveyed.places})
        skips.update(dict.fromkeys(surveyed.skips))
        notes.update(dict.fromkeys(surveyed.notes))
    return _distinct(Survey(tuple(runs.values()), tuple(places.values()), (*skips,), (*notes,)))


def _surveyed(path: Path, options: Options) -> Survey:
    """The survey of one path."""
    walk = Walk(options)
    reading = TreeRuns(path.resolve(), walk)
    cached = hub_folder.model_around(path)
    if cached is None:
        tree = walk.node(path, is_root=True)
        reading.read(tree)
    else:
        tree = Node(path, is_file=False, is_cache=True)
        reading.read_cached(*cached)
    if not reading.runs:
        for note in reading.notes:
            raise RankscopeError(note.message, path=note.path)
        raise RankscopeError(_nothing_found(path, tree, options.layout), path=path)
    places = tuple(iter_places(tree, reading))
    skips = (*walk.skips, *reading.skips, *iter_lost_steps(places, path))
    named = {skip.path for skip in (*skips, *reading.notes)}  # as messages show them
    logs = (note for run in reading.runs for note in iter_log_notes(run))
    notes = (*reading.notes, *iter_notes(places, named), *logs)
    return Survey(tuple(reading.runs), places, skips, notes)


def _here(path: str | Path) -> Path:
    """The path itself; what stands for it if it is elsewhere."""
    if not is_address(path):
        return Path(path)
    from rankscope.checkpoints.remote.stand_ins import laid_out  # it loads the web

    return laid_out(path)


def _one_snapshot(folder: Path) -> Path:
    """The folder itself; for a model of the hub with one snapshot, that."""
    snapshots = hub_folder.snapshots_of(folder) if hub_folder.is_model(folder) else []
    return snapshots[0] if len(snapshots) == 1 else folder


def _followed(path: Path) -> Path:
    """The path itself, what stands for it if it is elsewhere, or the target of a link.

    The name of the target may state the step.
    """
    path = _here(path)
    if path.exists():
        # The target of a link into the blobs of the hub's cache is named by a hash.
        return path.resolve() if path.is_symlink() and not hub_folder.is_blob_link(path) else path
    cached = hub_folder.cached_model(path)
    if cached is not None:
        return cached
    message = does_not_exist(path)
    if hub_folder.is_name(path) and message.endswith("exist"):
        message += f", nor does {hub_folder.cache_folder()} hold it"
    raise WrongSettingError(message, path=path)


def _nothing_found(path: Path, tree: Node, layout: str | None) -> str:
    what = "is not a file of weights" if path.is_file() else "holds no checkpoint"
    if tree.why:
        return f"{tree.why}: give the folder of a run"
    if layout is not None:
        return f"{what} of the layout {layout} ({LAYOUTS[layout].description})"
    links = [node for node in tree if node.why == LINK]
    if links:
        name = links[0].path.relative_to(path).as_posix()
        return (
            f"{what}, but {len(links)} link{'s' * (len(links) > 1)}, such as {name}; links in a "
            "folder are not followed: give what they lead to, or one of the links"
        )
    return fault_of(path) or f"{what} that is recognised{_refused(path, tree)}"


def _refused(path: Path, tree: Node) -> str:
    """The names of files that look like checkpoints and are not read, one of each kind."""
    kinds: dict[str, Path] = {}
    for node in tree:
        if node.is_file and not node.why and (why := refusal(node.path)):
            kinds.setdefault(why, node.path)
    words = [(one, why) for why, one in kinds.items()]
    if not words:
        return ""
    named = [
        f"{one.relative_to(path).as_posix()} {why.partition(', which')[0] if words[1:] else why}"
        for one, why in words
    ]
    return printable(": " + "; ".join(named), limit=MOST)


def _distinct(surveyed: Survey) -> Survey:
    """The survey with a different name for every run: ``a/run``, ``b/run`` instead of ``run``."""
    counts = Counter(run.name for run in surveyed.runs)
    collide = [run for run in surveyed.runs if counts[run.name] > 1]
    names = {(run.path, run.stage): run.name for run in surveyed.runs}
    names |= {(run.path, run.stage): _distinct_name(run, collide) for run in collide}
    renamed = {c.path: names[run.path, run.stage] for run in collide for c in run}
    runs = (replace(run, name=names[run.path, run.stage]) for run in surveyed.runs)
    places = (replace(one, run=renamed.get(one.path, one.run)) for one in surveyed.places)
    return replace(surveyed, runs=tuple(runs), places=tuple(places))


def _distinct_name(run: Run, others: Iterable[Run]) -> str:
    """The shortest end of a run's path that no other of these has, and its stage."""
    parts = run.path.resolve().parts
    rest = [
        other.path.resolve().parts
        for other in others
        if (other.path, other.stage) != (run.path, run.stage) and other.stage == run.stage
    ]
    size = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in rest)), 0)
    name = as_text(Path(*parts[-size:]).as_posix())
    return name if run.stage is None else as_text(f"{name}/{run.stage}")
