"""The result of `represent`, computed now or recalled from an earlier call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.pipeline.call_results import CallResult
from rankscope.pipeline.curves import Curve, RecalledCurves
from rankscope.representing.collected import EMBEDDING, FINAL, Place
from rankscope.representing.comparison_plans import ComparisonEntry
from rankscope.representing.comparison_sides import Side
from rankscope.representing.feature_files import FeatureFile
from rankscope.representing.feature_tasks import INPUTS, STORED, Series
from rankscope.representing.stored_activations import STORED_TEXTS
from rankscope.results.representation_tables import (
    typed_input_energies,
    typed_representations,
    typed_similarities,
)

if TYPE_CHECKING:
    import pandas as pd

ComparedSides = tuple[Side, ComparisonEntry, Side]


def series_in(table: pd.DataFrame) -> list[tuple[Series, int]]:
    """The series and the step of each row of a table."""
    columns = (table[name] for name in ("run", "text", "features", "at", "step"))
    return [
        ((run, text, features, kind_of(text, at)), step)
        for run, text, features, at, step in zip(*columns, strict=True)
    ]


def energy_series_in(table: pd.DataFrame) -> list[tuple[Series, int]]:
    """The same for a table of input energies."""
    return series_in(table.assign(at=INPUTS))


def kind_of(text: str, at: str) -> str:
    """The kind of place, of which a call looks into all or none."""
    if text in STORED_TEXTS:
        return STORED
    return "block" if at in (EMBEDDING, FINAL) else at


@dataclass(frozen=True)
class Seen:
    """One checkpoint's numbers, and where what is kept of it is."""

    curve: Curve
    file: FeatureFile
    path: Path

    @property
    def is_of_inputs(self) -> bool:
        """Whether it is of what weights read, which has no place in a network of its own."""
        return bool(self.curve.settings["at"] == INPUTS)

    @property
    def side(self) -> Side:
        """What comparing it takes; places without features of every token are left out."""
        places = (Place(row["layer"], row["at"]) for row in self.file.rows)
        file = self.file
        return Side(self.curve, file.step, self.path, file.key, file.probe, tuple(places))


@dataclass(frozen=True)
class Representation(CallResult):
    """What one call found.

    Attributes
    ----------
    curves
        One per run and kind of place: where the numbers with this call's settings are.
    asked
        The requested steps, by run name.
    seen
        The numbers of each checkpoint.
    compared
        The comparisons of each checkpoint.
    planned, folders
        As in `rankscope.pipeline.curves.CurvePlans`.
    """

    curves: tuple[Curve, ...]
    asked: Mapping[str, tuple[int, ...]]
    seen: tuple[Seen, ...]
    compared: tuple[ComparedSides, ...]
    planned: frozenset[tuple[Any, ...]]
    folders: frozenset[str]

    @property
    def measured(self) -> int:
        """Number of checkpoints with numbers, of whatever kinds of places."""
        return len({(one.curve.run, one.file.step) for one in self.seen})

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of this call."""
        import pandas as pd

        return typed_representations(pd.DataFrame(self._rows(of_inputs=False)))

    @cached_property
    def input_energies(self) -> pd.DataFrame:
        """What weights read, of this call."""
        import pandas as pd

        return typed_input_energies(pd.DataFrame(self._rows(of_inputs=True)))

    def _rows(self, *, of_inputs: bool) -> list[dict[str, Any]]:
        return [
            {**_place(one.curve, one.file.step), **_probe(one.file), **row}
            for one in self.seen
            if one.is_of_inputs == of_inputs
            for row in one.file.rows
        ]

    @cached_property
    def similarities(self) -> pd.DataFrame:
        """The comparisons of this call."""
        import pandas as pd

        rows = [
            {
                **_place(side.curve, side.step),
                "comparison": entry.comparison,
                "against_run": against.curve.run,
                "against_step": against.step,
                **row,
            }
            for side, entry, against in self.compared
            for row in entry.rows
        ]
        return typed_similarities(pd.DataFrame(rows))


@dataclass(frozen=True)
class RecalledRepresentation(RecalledCurves):
    """An earlier call whose results still hold, and what is requested now."""

    @property
    def measured(self) -> int:
        """As of `Representation`."""
        return len({(series[0], step) for series, step in self.planned})

    def _stored(self) -> tuple[pd.DataFrame, Iterable[tuple[Any, ...]]]:
        from rankscope.results.results import open_results

        table = open_results(self.out).representations
        return table, series_in(table)


def _place(curve: Curve, step: int) -> dict[str, Any]:
    return {
        "run": curve.run,
        "step": step,
        "text": curve.task,
        "features": curve.settings["features"],
    }


def _probe(file: FeatureFile) -> dict[str, Any]:
    return {"probe": file.probe, "window": file.window or None, "documents": file.documents}
