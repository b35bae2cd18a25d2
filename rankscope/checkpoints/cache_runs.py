"""Runs in a model's folder in the hub's cache: which snapshot is of which step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints import hub_folder
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.series import Candidate, Series
from rankscope.checkpoints.series_titles import natural
from rankscope.checkpoints.steps import stage_in_name, step_in_name
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
    name = hub_folder.model_name(model.resolve())
    snapshots = hub_folder.snapshots_of(model) if place == model else [place]
    layouts = {path: layout_of(path, options.layout) for path in snapshots}
    whole = [(path, layout) for path, layout in layouts.items() if layout is not None]
    found = find_snapshots(model, whole)
    series, skips = series_of_snapshots(found)
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


def series_of_snapshots(found: Iterable[Candidate]) -> tuple[list[Series], list[Skip]]:
    """Checkpoints of each stage of a model's training, the stages in the order of their names.

    Of two that state the same step the first is taken, and a skip names the other.
    """
    stages: dict[str | None, Series] = {}
    skips = []
    for one in found:
        if one.step is not None:
            step, source = one.step
            series = stages.setdefault(one.stage, Series({}, stage=one.stage))
            if step in series.members:
                message = f"is step {step}, and so is {series.members[step][0].name}"
                skips.append(Skip(str(one.path), "", "duplicate-step", f"{message}: left out"))
            else:
                series.members[step] = (one, source)
    for stage, series in stages.items():
        series.title = stage or ""
    return [
        stages[stage] for stage in sorted(stages, key=lambda stage: natural(stage or ""))
    ], skips


def find_snapshots(model: Path, checkpoints: Iterable[tuple[Path, str]]) -> list[Candidate]:
    """Checkpoints of a model, from those of its snapshots that are of a layout (path, layout).

    The step is in the name of the branch. One commit may have several branches, each of which is a
    checkpoint if it states a step. Where any does, branches that do not are left out: ``main`` is
    mostly the last step once more. A snapshot that no branch points to was replaced, or downloaded
    by its commit: it counts if a file in it tells a step that no branch has. Where nothing tells a
    step, the branches are what there is to compare; without branches, the snapshots.

    Raises
    ------
    RankscopeError
        If a file that tells the step is damaged.
    """
    branches = hub_folder.read_branches(model)
    stated: list[Candidate] = []
    named: list[Candidate] = []
    nameless: list[Candidate] = []
    for path, layout in checkpoints:
        names = branches.get(path.name, [])
        stating = [
            Candidate(path, name, layout, (step, "branch"), stage_in_name(name))
            for name in names
            if (step := step_in_name(name)) is not None
        ]
        stated += stating
        if not names:
            nameless.append(Candidate(path, path.name[:12], layout, LAYOUTS[layout].step(path)))
        elif not stating:
            # Some hubs have a branch for each run, and the steps in the files alone.
            name = "main" if "main" in names else names[0]
            stage = None if name == "main" else name
            named.append(Candidate(path, name, layout, LAYOUTS[layout].step(path), stage))
    kept = stated or named
    taken = {(one.stage, one.step[0]) for one in kept if one.step}
    if not kept:
        return nameless
    if not taken:
        return kept
    return kept + [one for one in nameless if one.step and (None, one.step[0]) not in taken]
