"""Runs in a model's folder in the hub's cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints import hub_cache
from rankscope.checkpoints.layouts import layout_of
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Place

if TYPE_CHECKING:
    from rankscope.checkpoints.tree_runs import TreeRuns


def read_cache(reading: TreeRuns, place: Path, model: Path) -> None:
    """Read the runs of a model in the cache, or of the one snapshot of it that is the place.

    Its snapshots are checkpoints, whose steps their branches state; where a snapshot is none, the
    repository may hold its checkpoints in folders.
    """
    name = hub_cache.model_name(model.resolve())
    snapshots = hub_cache.snapshots_of(model) if place == model else [place]
    layouts = {path: layout_of(path, reading.options.layout) for path in snapshots}
    whole = [(path, layout) for path, layout in layouts.items() if layout is not None]
    found = hub_cache.find_snapshots(model, whole)
    series, skips = hub_cache.series_of_snapshots(found)
    reading.skips += skips
    runs = [
        Run(
            f"{name}/{one.stage}" if one.stage else name,
            place,
            one.checkpoints(reading.options),
            one.stage,
        )
        for one in series
    ]
    for one in found if not series else []:
        title = name if one.name == "main" else f"{name}@{one.name}"
        step = one.step or (0, "order")
        runs.append(Run(title, one.path, (one.at(step, reading.options),)))
    for run in runs:
        reading.runs.append(run)
        reading.uses |= {c.path: Place(c.path, "step", run.name, c.step) for c in run}
    for path in snapshots:
        if layouts[path] is None:
            _read_folders(reading, path, f"{name}@{path.name[:12]}")
        elif path not in reading.uses:
            why = "is of no branch that states a step, beside those that are"
            reading.uses[path] = Place(path, "left out", reason=why)


def _read_folders(reading: TreeRuns, snapshot: Path, name: str) -> None:
    """Runs in the folders of a snapshot, named after it."""
    inner = type(reading)(snapshot.resolve(), reading.walk)
    inner.read(reading.walk.node(snapshot, is_root=True))

    def named(run: str) -> str:
        below = run.removeprefix(inner.root.name)
        return name + (below if not below or below.startswith("/") else f"/{below}")

    reading.runs += [replace(run, name=named(run.name)) for run in inner.runs]
    for path, place in inner.uses.items():
        reading.uses[path] = replace(place, run=named(place.run)) if place.run else place
    reading.skips += inner.skips
    reading.notes += inner.notes
