"""Steps that cannot be read: missing shards, pointers, damage, folders still being written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.survey import Place as SurveyedPlace
from rankscope.diagnostics.evidence import Evidence
from rankscope.diagnostics.finding import Finding, Kind, Number, Place, Unchecked

UNREADABLE = Kind(
    "step-unreadable",
    "error",
    "This step is missing from every result, and the next update spans the gap.",
    "Copy or download it again. `git lfs pull` fetches what a pointer stands for; an index names "
    "its shards.",
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
    "It is still being written, or writing it was cut short; it is left out.",
    "Wait if the training runs; otherwise delete it.",
)
# Reasons that other findings state better, or that cost no measurement.
ELSEWHERE = ("break", "no-cycles", "adapter-merged", "new", "origin")
DAMAGE = ("damaged", "cut-short", "lost", "missing-shard")


def check_readable(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Name the steps that cannot be read, and tensors of others."""
    partly: dict[str, list[tuple[int, Skip]]] = {}
    for step in evidence.steps:
        for skip in step.skips:
            if skip.reason in ELSEWHERE:
                continue
            if step.contents is None or not step.contents.parameters:
                text = _text(skip)
                yield UNREADABLE.at(evidence.place.of([step.step]), text, {"reason": skip.reason})
            else:
                partly.setdefault(skip.message, []).append((step.step, skip))
    for skip, at in evidence.unread:
        partly.setdefault(skip.message, []).append((at, skip))
    for message, found in partly.items():
        names = [skip.tensor for _, skip in found if skip.tensor]
        place = evidence.place.of((at for at, _ in found), names)
        numbers: dict[str, Number] = {"reason": found[0][1].reason, "tensors": len(set(names))}
        is_damage = found[0][1].reason in DAMAGE
        yield PARTLY.at(
            place, f"it {message}" if names else message, numbers,
            severity="error" if is_damage else None,
        )  # fmt: skip


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
        place = _place(known, skip.path, steps)
        yield UNREADABLE.at(place, _text(skip), {"reason": skip.reason})
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
    where = "/".join(Path(skip.path).parts[-2:])
    return f"{where}: {skip.message}" + (f" ({skip.tensor})" if skip.tensor else "")
