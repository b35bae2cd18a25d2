"""The runs of a model in the hub's cache: which snapshot is which step."""

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
    """What the cache holds of a model.

    Attributes
    ----------
    folders
        Snapshots that are not a checkpoint but may have some in folders, each with a name.
    """

    runs: list[Run] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    notes: list[Skip] = field(default_factory=list)
    folders: list[tuple[Path, str]] = field(default_factory=list)


def read_cache(folder: Path, model: Path, options: Options) -> Cached:
    """Read the runs of a model in the cache.

    Its snapshots are checkpoints, whose steps the names of their branches state. If no branch
    states a step, each snapshot is a run.

    Parameters
    ----------
    folder
        The folder of the model, or that of one of its snapshots.
    model
        The folder of the model.

    Raises
    ------
    RankscopeError
        If the snapshots cannot be listed.
    """
    name = hub_folder.model_name(model.resolve())
    snapshots = hub_folder.snapshots_of(model) if folder == model else [folder]
    layouts = {path: layout_of(path, options.layout) for path in snapshots}
    whole = [(path, layout) for path, layout in layouts.items() if layout is not None]
    candidates = candidates_of(model, whole)
    series, skips = series_of_snapshots(candidates)
    read = Cached(skips=skips)
    for one in series:
        title = f"{name}/{one.stage}" if one.stage else name
        read.runs.append(Run(title, folder, one.checkpoints(options), one.stage))
    for alone in candidates if not series else []:
        title = name if alone.name == "main" else f"{name}@{alone.name}"
        checkpoint = alone.at(alone.step or (0, "order"), options)
        read.runs.append(Run(title, alone.path, (checkpoint,)))
    read.places += [Place(c.path, "step", run.name, c.step) for run in read.runs for c in run]
    used = {one.path for one in read.places}
    for path in snapshots:
        if layouts[path] is None:
            read.folders.append((path, f"{name}@{path.name[:12]}"))
        elif path not in used:
            why = "is not on a branch whose name states a step, as others are"
            read.places.append(Place(path, "left out", reason=why))
            read.notes.append(Skip(str(path), "", "left-out", f"is left out: it {why}"))
    return read


def series_of_snapshots(candidates: Iterable[Candidate]) -> tuple[list[Series], list[Skip]]:
    """The series of each stage of a model's training, in the order of the names of the stages.

    Of two checkpoints that state the same step the first is taken, and a skip names the other.
    """
    stages: dict[str | None, Series] = {}
    skips = []
    for one in candidates:
        if one.step is not None:
            step, source = one.step
            series = stages.setdefault(one.stage, Series({}, stage=one.stage))
            if step in series.members:
                message = f"is step {step}, and so is {series.members[step][0].name}"
                message += ": it is left out"
                skips.append(Skip(str(one.path), "", "duplicate-step", message))
            else:
                series.members[step] = (one, source)
    for stage, series in stages.items():
        series.title = stage or ""
    return [
        stages[stage] for stage in sorted(stages, key=lambda stage: natural(stage or ""))
    ], skips


def candidates_of(model: Path, checkpoints: Iterable[tuple[Path, str]]) -> list[Candidate]:
    """The checkpoints of a model, each under the name of its branch.

    The name of a branch states the step. One commit may have several branches; each is a checkpoint
    if it states a step. If any does, branches that do not are left out: ``main`` is usually a copy
    of the last step. A snapshot without a branch was replaced, or downloaded by its commit: it
    counts if a file in it states a step that no branch has. If nothing states a step, the branches
    are returned, or the snapshots if there are no branches.

    Parameters
    ----------
    checkpoints
        Path and layout of every snapshot that is a checkpoint.

    Raises
    ------
    RankscopeError
        If a file that states the step is damaged.
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
            # Some models have a branch for each run, and only their files state the steps.
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
