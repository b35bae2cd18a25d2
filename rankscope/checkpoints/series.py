"""Checkpoints that were found beside each other, put in order: by steps, or by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.layouts import LAYOUTS, layout_of
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Checkpoint
from rankscope.checkpoints.steps import (
    place_in_name,
    stage_in_name,
    stated_name,
    step_in_name,
    tokens_in_name,
)
from rankscope.errors import RankscopeError

# Names under which one of a series is kept once more.
COPIES = frozenset({"best", "final", "last", "latest", "main"})


@dataclass(frozen=True)
class Found:
    """A checkpoint before its place in a run is known.

    Attributes
    ----------
    name
        Of its folder or branch, or of its file without the suffix.
    step
        Its step and the source of that; None if nothing tells.
    stage
        Stage of the training, in each of which steps are counted anew.
    """

    path: Path
    name: str
    layout: str
    step: Step | None
    stage: str | None = None

    def at(self, step: Step, options: Options) -> Checkpoint:
        """The checkpoint, as that of this step."""
        tokens = tokens_in_name(self.name)
        return Checkpoint(self.path, *step, self.layout, options, tokens)

    def alone(self, options: Options) -> Checkpoint:
        """The checkpoint, as the only one of its run."""
        return self.at(self.step or (0, "order"), options)


def find_checkpoints(paths: Iterable[Path], options: Options) -> list[Found]:
    """Those of the folders or files that are checkpoints.

    Raises
    ------
    RankscopeError
        If a file that tells the step is damaged.
    """
    found = []
    for path in paths:
        layout = layout_of(path, options.layout)
        if layout is not None:
            name, step = stated_name(path), LAYOUTS[layout].step(path)
            found.append(Found(path, name, layout, step, stage_in_name(name)))
    return found


def find_series(
    found: Sequence[Found], options: Options
) -> dict[str | None, tuple[Checkpoint, ...]]:
    """Checkpoints of each stage, ascending by step; the stages in the order of their names.

    If any states a step, those that state none are left out, such as the ``final`` beside a series
    of ``checkpoint-500``; and so is one whose file states the step that another has in its name,
    as a copy to resume from does (``last.ckpt``). If none does, they are a series only where their
    names say so: the same word that counts time, and a number or a letter (``epoch-1``,
    ``epoch-2``), all of one layout. Their steps are then 0, 1, 2 …, in the order of the numbers.
    Else there is no series, and each is a run of its own: ``base`` and ``tuned``, or ``seed1`` and
    ``seed2``.

    Raises
    ------
    RankscopeError
        If two checkpoints of a stage are of the same step.
    """
    stages: dict[str | None, dict[int, Found]] = {}
    for one in sorted(found, key=_names_a_step, reverse=True):
        if one.step is None:
            continue
        same = stages.setdefault(one.stage, {}).setdefault(one.step[0], one)
        if same is not one and _names_a_step(same) == _names_a_step(one):
            raise RankscopeError(
                f"is step {one.step[0]}, and so is {same.name}: remove one", path=one.path
            )
    if not stages:
        return _series_by_name(found, options)
    return {
        stage: tuple(
            one.at(one.step, options) for _, one in sorted(stages[stage].items()) if one.step
        )
        for stage in sorted(stages, key=_natural)
    }


def _names_a_step(one: Found) -> bool:
    return step_in_name(one.name) is not None


def _series_by_name(
    found: Sequence[Found], options: Options
) -> dict[str | None, tuple[Checkpoint, ...]]:
    """The one series that names without steps make, if they do."""
    placed = {one: place_in_name(one.name) for one in found if one.name.lower() not in COPIES}
    places = [place for place in placed.values() if place is not None]
    alike = len({stem for stem, _ in places}) == 1 and len({one.layout for one in placed}) == 1
    if not alike or not 1 < len(placed) == len(set(places)):
        return {}
    ordered = sorted(placed, key=lambda one: placed[one] or ("", 0))
    return {None: tuple(one.at((i, "order"), options) for i, one in enumerate(ordered))}


def _natural(stage: str | None) -> list[tuple[str, int]]:
    """Key that sorts the numbers in names as numbers; no stage comes first."""
    return [(word, int(digits or 0)) for word, digits in re.findall(r"(\D*)(\d*)", stage or "")]
