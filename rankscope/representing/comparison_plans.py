"""Which checkpoints are compared with which, layer by layer, and where what is found is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import FileStates
from rankscope.evaluation.score_plans import digest_of_values
from rankscope.pipeline import execution
from rankscope.pipeline.engine import Failure
from rankscope.pipeline.execution import Plan, skip_of_failure
from rankscope.representing.collected import (
    Place,
    Side,
    kind_of_features,
    series_key,
)
from rankscope.representing.feature_files import Row
from rankscope.representing.loss_pairs import LossPair, iter_pairs_of
from rankscope.results.vectors import read_listed, write_vectors

Comparing = Literal["last", "previous", "layers", "runs", "loss"]
COMPARISONS: tuple[Comparing, ...] = get_args(Comparing)
VERSION = "1"  # of arithmetic and files: numbers of other versions are never reused


@dataclass(frozen=True)
class Compared:
    """A checkpoint against another, or its layers against each other.

    Attributes
    ----------
    key
        Digest of everything that the numbers depend on.
    losses
        Of both, where they are compared at equal loss, and what that is the loss of.
    """

    key: str
    comparison: Comparing
    side: Side
    against: Side
    losses: tuple[float, float, str] | None = None
    files: FileStates = ()
    work: float = 1.0

    @property
    def pairs(self) -> list[tuple[Place, Place]]:
        """Places that are compared: the same on both sides, or each with all later ones."""
        places = self.side.places
        if self.comparison == "layers":
            pairs = [(one, other) for i, one in enumerate(places) for other in places[i + 1 :]]
            return [(one, other) for one, other in pairs if one.kind == other.kind]
        return [(place, place) for place in places if place in self.against.places]


@dataclass(frozen=True)
class ComparisonEntry:
    """The numbers of one `Compared`: a row for each pair of places."""

    key: str
    comparison: Comparing
    rows: tuple[Row, ...]


class ComparisonPlans(execution.Plans[Compared]):
    """The plans of all comparisons: one per checkpoint and kind of place.

    Parameters
    ----------
    sides
        All checkpoints with features.
    wanted
        What each is compared with.
    pairs
        Checkpoints of two runs at equal loss.

    Attributes
    ----------
    count
        Number of plans.
    """

    def __init__(
        self, sides: Sequence[Side], wanted: Iterable[Comparing], pairs: Sequence[LossPair] = ()
    ) -> None:
        plans = [
            Plan(side.curve.run, side.step, tuple(tasks))
            for side, tasks in _tasks(sides, set(wanted), pairs)
            if tasks
        ]
        self.count = len(plans)
        super().__init__(plans, VERSION)


def _tasks(
    sides: Sequence[Side], wanted: set[Comparing], pairs: Sequence[LossPair]
) -> Iterator[tuple[Side, list[Compared]]]:
    """Every checkpoint with its comparisons."""
    ordered = sorted(sides, key=lambda side: (*series_key(side), side.step))
    by_series = {key: list(some) for key, some in groupby(ordered, key=series_key)}
    for series in by_series.values():
        before: dict[int, Side] = {late.step: early for early, late in pairwise(series)}
        for side in series:
            found: dict[Comparing, list[Side]] = {
                "last": [series[-1]] if side is not series[-1] else [],
                "previous": [before[side.step]] if side.step in before else [],
                "layers": [side],
                "runs": [other for other in ordered if _is_same_step(side, other)],
            }
            tasks = [
                _compared(name, side, against)
                for name in COMPARISONS
                if name in wanted
                for against in found.get(name, ())
            ]
            tasks += [_at_loss(pair) for pair in iter_pairs_of(side, pairs)]
            yield side, [task for task in tasks if task.against.probe == side.probe]


def unlike(sides: Sequence[Side]) -> list[Skip]:
    """A line for each two runs that cannot be compared because their tokens differ."""
    first: dict[tuple[Any, ...], Side] = {}
    skips = dict[tuple[str, str], Skip]()
    for side in sides:
        key = *kind_of_features(side), side.step
        one = first.setdefault(key, side)
        if one.probe != side.probe:
            message = (
                f"is not compared with {one.curve.run}: another tokenizer, window or number of "
                "tokens gives other tokens; `window` and `tokens` can make the latter two equal"
            )
            skip = Skip(side.curve.path, "", "other-tokens", message)
            skips.setdefault((one.curve.run, side.curve.run), skip)
    return list(skips.values())


def _is_same_step(side: Side, other: Side) -> bool:
    """Whether another, later run is at the same step at places of the same kind."""
    return (
        other.curve.run > side.curve.run
        and other.step == side.step
        and kind_of_features(other) == kind_of_features(side)
    )


def _compared(comparison: Comparing, side: Side, against: Side) -> Compared:
    key = digest_of_values(
        VERSION, comparison, side.key, against.key, against.curve.run, against.step
    )
    return Compared(key, comparison, side, against)


def _at_loss(pair: LossPair) -> Compared:
    found = _compared("loss", pair.side, pair.against)
    losses = *pair.losses, pair.source
    return replace(found, key=digest_of_values(found.key, losses), losses=losses)


def doubts(compared: Iterable[tuple[Side, ComparisonEntry]]) -> list[Skip]:
    """A line for each reason why similarities lack numbers, with the first of them."""
    found: dict[str, list[tuple[Side, Row]]] = {}
    for side, entry in compared:
        for row in entry.rows:
            if row["status"] in DOUBTS:
                found.setdefault(row["status"], []).append((side, row))
    lines = []
    for status, some in found.items():
        side, row = some[0]
        where = f"the {row['at']} of layer {row['layer']} at step {side.step}"
        more = f" and {len(some) - 1} more places" if len(some) > 1 else ""
        message = f"{where}{more}, compared: {DOUBTS[status]}"
        lines.append(Skip(side.curve.path, "", status, message))
    return lines


# Why similarities lack numbers: every status but the good one, and but that of features that are
# not finite, which their own line has said.
DOUBTS = {
    "too-few-blocks": "fewer than five documents, so CKA has no interval: give more of them",
    "unresolved": (
        "unbiased HSIC of one side with itself is not above zero, so CKA has no interval: more "
        "text, or more `kept` features, may show it"
    ),
    "constant": "the features of one side vary no more than rounding may, so nothing is compared",
}


class ComparisonFiles:
    """The store of comparisons: one file per checkpoint and kind of place."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def path(self, plan: Plan[Compared]) -> Path:
        """File of the comparisons of a checkpoint."""
        name = f"compared-step-{plan.step:08d}.safetensors"
        return self._out / plan.tasks[0].side.curve.folder / name

    def read(self, path: Path) -> list[ComparisonEntry]:
        """The entries of a file."""
        return read_listed(path, _entries, version=VERSION)

    def write(self, path: Path, stored: list[ComparisonEntry], new: list[ComparisonEntry]) -> None:
        """Write new entries, and the stored ones."""
        held = {entry.key: entry for entry in (*stored, *new)}
        listed = sorted(map(asdict, held.values()), key=lambda one: str(one["key"]))
        write_vectors(path, {}, {"comparisons": listed}, version=VERSION)

    def entries(self, task: Compared, result: ComparisonEntry) -> list[ComparisonEntry]:
        """The result as it is."""
        return [result]

    def failed(self, task: Compared, failure: Failure) -> tuple[list[ComparisonEntry], Skip]:
        """Nothing, and why."""
        return [], skip_of_failure(failure, task.side.path)

    def fault(self, task: Compared, entry: ComparisonEntry) -> Skip | None:
        """Nothing: `doubts` has a line for all of them."""
        return None


def _entries(about: Mapping[str, Any], vectors: Mapping[str, Any]) -> list[ComparisonEntry]:
    return [
        ComparisonEntry(one["key"], one["comparison"], tuple(dict(row) for row in one["rows"]))
        for one in about["comparisons"]
    ]
