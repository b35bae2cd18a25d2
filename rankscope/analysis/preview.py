"""What an analysis would find: everything that headers say, with nothing decomposed.

It goes through the same steps as an analysis, so that both skip the same things for the same
reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rankscope.addresses import shown
from rankscope.analysis.history import Step, iter_steps
from rankscope.analysis.request import Selection
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.description import Description
from rankscope.checkpoints.remote.ledger import fetched
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Place, Survey
from rankscope.components.recipes import Misfit

SCHEMA_VERSION = 1


def preview(met: Survey) -> dict[str, Any]:
    """All that headers say about what a survey found, in plain values.

    Returns
    -------
    ``runs`` as in `Description`; ``places``, what became of every folder and file; ``skips``, what
    an analysis of the default selection would skip; ``notes``; and ``fetched``, what was fetched
    from elsewhere for it.
    """
    runs = [_previewed(run) for run in met.runs]
    skips = [asdict(skip) for skip in met.skips]
    notes = [asdict(note) for note in met.notes]
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": runs,
        "places": [_place(place) for place in met.places],
        "skips": _distinct([*skips, *(skip for run in runs for skip in run["skips"])]),
        "notes": _distinct([*notes, *(note for run in runs for note in run["notes"])]),
        "fetched": asdict(fetched()),
    }


def _previewed(run: Run) -> dict[str, Any]:
    selection, description = Selection(), Description(run)
    checkpoints = {checkpoint.step: checkpoint for checkpoint in run}
    skips: list[Skip] = []
    notes: list[Skip] = []
    breaks: list[int] = []
    unreadable: list[int] = []
    for step in iter_steps(run, selection.asked):
        skips += (*step.skips, *_misfits(step, selection))
        notes += step.notes
        if step.breaks:
            breaks.append(step.step)
        if step.contents is not None:
            description.add(checkpoints[step.step], step.contents)
        elif step.step in checkpoints:
            unreadable.append(step.step)
    described = description.described(skips, notes)
    return described | {"breaks": breaks, "unreadable_steps": unreadable}


def _misfits(step: Step, selection: Selection) -> Iterator[Skip]:
    """Requested matrices of a step that cannot be formed."""
    for component in filter(selection.has, step.components):
        recipe = component.recipe
        if isinstance(recipe, Misfit):
            yield Skip(recipe.path, recipe.name, recipe.reason, recipe.message)


def _place(place: Place) -> dict[str, Any]:
    return asdict(place) | {"path": shown(place.path)}


def _distinct(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without duplicates."""
    return list({tuple(line.values()): line for line in lines}.values())
