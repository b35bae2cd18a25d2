"""Finding runs in folders: what is a checkpoint, and of which run and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints import hub_folder
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.family import read_family
from rankscope.checkpoints.files.weights_file import refusal
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Place, Survey, fault_of
from rankscope.checkpoints.tree_places import iter_lost_steps, iter_notes, iter_places
from rankscope.checkpoints.tree_runs import TreeRuns
from rankscope.checkpoints.walk import LINK, Node, Walk
from rankscope.errors import RankscopeError, printable

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

    Lists folders and reads step numbers; no tensor is read yet. The options are those of
    `survey`.

    Raises
    ------
    RankscopeError
        If there is no run, or more than one: then `open_runs` opens them.
    """
    runs = open_runs([path], layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:5])
        more = ", …" if len(runs) > 5 else ""
        raise RankscopeError(
            f"holds {len(runs)} runs ({names}{more}): name one, or use open_runs", path=path
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
    """Open every run in and below the given folders: the runs of `survey`, which says the rest.

    Raises
    ------
    RankscopeError
        If a path does not exist or holds no checkpoint, or the layout or family is not known.
    """
    found = survey(paths, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    return list(found.runs)


def survey(
    paths: Iterable[str | Path],
    *,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Survey:
    """Open every run in and below the given folders, and say what became of all that was met.

    A run is what the names of siblings say together (`rankscope.checkpoints.sibling_names`), in a
    folder or in its folder ``checkpoints``; their checkpoints may lie a few folders below the
    folder of the step. It is named by its path below the folder given, with a word behind it where
    a folder holds several: ``RUN/actor``, ``RUN/ema``, ``RUN/stage1``. Steps are counted anew in
    each, since an update from one to another would mean nothing. Links are not followed, so that a
    ``latest`` does not count a step twice; results of this package are not looked into.

    In a cache of the Hugging Face hub, a model is a run ``ORG/NAME``, whose steps are in the names
    of its branches (`rankscope.checkpoints.hub_folder`).

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
        If a path, or the base, does not exist; if a path holds no checkpoint, or the layout or
        family is not known.
    """
    if layout is not None and layout not in LAYOUTS:
        raise RankscopeError(f"{layout!r} is not a layout: known are {', '.join(sorted(LAYOUTS))}")
    if base is not None and not Path(base).exists():
        raise RankscopeError("does not exist: the base is the folder of a model", path=base)
    options = Options(
        layout,
        None if family is None else read_family(family),
        trust_pickle,
        None if base is None else Path(base),
    )
    runs: dict[tuple[Path, str | None], Run] = {}
    places: dict[Path, Place] = {}
    skips: dict[Skip, None] = {}
    notes: dict[Skip, None] = {}
    for path in map(_followed, map(Path, paths)):
        found = _surveyed(path, options)
        runs.update({(run.path.resolve(), run.stage): run for run in found.runs})
        places.update({place.path: place for place in found.places})
        skips.update(dict.fromkeys(found.skips))
        notes.update(dict.fromkeys(found.notes))
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
    named = {skip.path for skip in (*skips, *reading.notes)}
    notes = (*reading.notes, *iter_notes(places, named))
    return Survey(tuple(reading.runs), places, skips, notes)


def _followed(path: Path) -> Path:
    """Where a path that was given leads to: a link's target, whose name may state the step."""
    if path.exists():
        # The target of a link into the blobs of the hub's cache is named by a hash.
        return path.resolve() if path.is_symlink() and not hub_folder.is_blob_link(path) else path
    cached = hub_folder.cached_model(path)
    if cached is not None:
        return cached
    where = f", nor does {hub_folder.cache_folder()} hold it" if hub_folder.is_name(path) else ""
    raise RankscopeError(f"does not exist{where}", path=path)


def _nothing_found(path: Path, tree: Node, layout: str | None) -> str:
    what = "is no file of weights" if path.is_file() else "holds no checkpoint"
    if tree.why:
        return f"{tree.why}: give the folder of a run"
    if layout is not None:
        return f"{what} of the layout {layout} ({LAYOUTS[layout].description})"
    links = [node for node in tree if node.why == LINK]
    if links:
        name = links[0].path.relative_to(path).as_posix()
        return (
            f"{what}, but {len(links)} links, such as {name}, and links in a folder are not "
            "followed: give what they lead to, or a link by itself"
        )
    return fault_of(path) or f"{what} that is known{_refused(path, tree)}"


def _refused(path: Path, tree: Node) -> str:
    """Files that look like checkpoints and are not read, one of each kind, by name."""
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


def _distinct(found: Survey) -> Survey:
    """The survey with names that differ: with as much of their paths as tells those that collide.

    ``a/run`` and ``b/run`` where both are called ``run``.
    """
    counts = Counter(run.name for run in found.runs)
    collide = [run for run in found.runs if counts[run.name] > 1]
    names = {(run.path, run.stage): run.name for run in found.runs}
    names |= {(run.path, run.stage): _told_apart(run, collide) for run in collide}
    renamed = {c.path: names[run.path, run.stage] for run in collide for c in run}
    runs = (replace(run, name=names[run.path, run.stage]) for run in found.runs)
    places = (replace(one, run=renamed.get(one.path, one.run)) for one in found.places)
    return replace(found, runs=tuple(runs), places=tuple(places))


def _told_apart(run: Run, others: Iterable[Run]) -> str:
    """The end of a run's path that no other of these has, and its stage."""
    parts = run.path.resolve().parts
    rest = [o.path.resolve().parts for o in others if (o.path, o.stage) != (run.path, run.stage)
            and o.stage == run.stage]  # fmt: skip
    size = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in rest)), 0)
    name = Path(*parts[-size:]).as_posix()
    return name if run.stage is None else f"{name}/{run.stage}"
