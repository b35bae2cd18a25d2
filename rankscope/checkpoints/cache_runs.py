"""Runs in a model's folder in the hub's cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints import hub_cache
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.layouts import layout_of
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Place


@dataclass
class Cached:
    """What a model's folder in the cache holds.

    Attributes
    ----------
    folders
        Snapshots that are not a checkpoint, and may hold some in folders; with a name for each.
    """

    runs: list[Run] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    notes: list[Skip] = field(default_factory=list)
    folders: list[tuple[Path, str]] = field(default_factory=list)


def read_cache(place: Path, model: Path, options: Options) -> Cached:
    """Read the runs of a model in the cache, or of the one snapshot of it that is the place.

    Its snapshots are checkpoints, whose steps their branches state. Where no snapshot states a
    step, each is a run.

    Raises
    ------
    RankscopeError
        If the snapshots cannot be listed.
    """
    name = hub_cache.model_name(model.resolve())
    snapshots = hub_cache.snapshots_of(model) if place == model else [place]
    layouts = {path: layout_of(path, options.layout) for path in snapshots}
    whole = [(path, layout) for path, layout in layouts.items() if layout is not None]
    found = hub_cache.find_snapshots(model, whole)
    series, skips = hub_cache.series_of_snapshots(found)
    read = Cached(skips=skips)
    for one in series:
        title = f"{name}/{one.stage}" if one.stage else name
        read.runs.append(Run(title, place, one.checkpoints(options), one.stage))
    for alone in found if not series else []:
        title = name if alone.name == "main" else f"{name}@{alone.name}"
        checkpoint = alone.at(alone.step or (0, "order"), options)
        read.runs.append(Run(title, alone.path, (checkpoint,)))
    read.places += [Place(c.path, "step", run.name, c.step) for run in read.runs for c in run]
    used = {one.path for one in read.places}
    for path in snapshots:
        if layouts[path] is None:
            read.folders.append((path, f"{name}@{path.name[:12]}"))
        elif path not in used:
            why = "is of no branch that states a step, beside those that are"
            read.places.append(Place(path, "left out", reason=why))
            read.notes.append(Skip(str(path), "", "left-out", f"is left out: it {why}"))
    return read
