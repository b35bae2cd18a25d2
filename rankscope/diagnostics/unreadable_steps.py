"""Steps that cannot be read: missing shards, pointers, damage, folders still being written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.kinds import Damage
from rankscope.checkpoints.survey import Place as SurveyedPlace
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Number, Place, Severity, Unchecked

UNREADABLE = Kind(
    "step-unreadable",
    "error",
    "The contents of these files are missing from every result, and an update across a missing "
    "step spans the gap.",
    "Copy or download the files again. `git lfs pull` fetches the file behind a pointer; an index "
    "names its shards.",
)
PARTLY = Kind(
    "partly-read",
    "warning",
    "Some tensors of these steps are not measured, so tables lack their matrices.",
    "See docs/checkpoints.md for what is read, and `rankscope inspect` for every tensor.",
)
UNFINISHED = Kind(
    "step-unfinished",
    "note",
    "It is still being written, or writing was interrupted; it is left out.",
    "Wait if the training is still running; otherwise delete it.",
)
# Reasons that other findings state better, or that cost no measurement.
ELSEWHERE = ("break", "no-cycles", "adapter-merged", "new", "origin")
NO_MATRICES = "no-matrices"  # said of a step beside the reasons for it
DAMAGE = ("damaged", "cut-short", "lost", "missing-shard", *get_args(Damage))


def check_readable(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Name the steps that cannot be read, and tensors of others; one finding per reason."""
    whole: dict[str, list[tuple[int, Skip]]] = {}
    partly: dict[str, list[tuple[int, Skip]]] = {}
    for step in evidence.steps:
        is_lost = step.contents is None or not step.contents.parameters
        skips = [skip for skip in step.skips if skip.reason not in ELSEWHERE]
        if len(skips) > 1:
            skips = [skip for skip in skips if skip.reason != NO_MATRICES]
        for skip in skips:
            of_step = whole if is_lost else partly
            of_step.setdefault(skip.message, []).append((step.step, skip))
    for skip, at in evidence.unread:
        partly.setdefault(skip.message, []).append((at, skip))
    for found in whole.values():
        place, numbers = _about(evidence, found)
        yield _unreadable(place, found[0][1], numbers)
    for found in partly.values():
        place, numbers = _about(evidence, found)
        severity: Severity | None = "error" if found[0][1].reason in DAMAGE else None
        yield PARTLY.at(place, _text(found[0][1]), numbers, severity=severity)


def _unreadable(place: Place, skip: Skip, numbers: dict[str, Number]) -> Finding:
    """What to do depends on whether the file is damaged, or whole and not understood."""
    remedy = "" if skip.reason in DAMAGE else PARTLY.remedy
    return UNREADABLE.at(place, _text(skip), numbers, remedy=remedy)


def _about(evidence: Evidence, found: list[tuple[int, Skip]]) -> tuple[Place, dict[str, Number]]:
    names = dict.fromkeys(skip.tensor for _, skip in found if skip.tensor)
    place = evidence.place.of((step for step, _ in found), names)
    return place, {"reason": found[0][1].reason, "tensors": len(names)}


def surveyed(
    runs: Iterable[Evidence],
    skips: Iterable[Skip],
    notes: Iterable[Skip],
    places: Iterable[SurveyedPlace],
) -> Iterator[Finding]:
    """Findings about what is beside the runs: steps that were lost, and unfinished ones."""
    known = list(runs)
    steps = {str(place.path): place.step for place in places}
    for skip in skips:
        yield _unreadable(_place(known, skip.path, steps), skip, {"reason": skip.reason})
    for note in notes:
        if "still being written" in note.message:
            yield UNFINISHED.at(_place(known, note.path, steps), _text(note))


def _place(runs: list[Evidence], path: str, steps: dict[str, int | None]) -> Place:
    """The run that a path is in; the path itself where it is in none."""
    owner = next((one for one in runs if Path(path).is_relative_to(one.run.path)), None)
    step = steps.get(path)
    place = Place(path) if owner is None else owner.place
    return place if step is None else place.of([step])


def _text(skip: Skip) -> str:
    return f"{'/'.join(Path(skip.path).parts[-2:])}: {skip.message}"
