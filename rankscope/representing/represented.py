"""The result of `represent`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.pipeline.curves import Curve, FoundCurves
from rankscope.representing.collected import Place, Side
from rankscope.representing.comparison_plans import ComparisonEntry
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
        ((run, text, features, STORED if text in STORED_TEXTS else Place(0, at).kind), step)
        for run, text, features, at, step in zip(*columns, strict=True)
    ]


def energy_series_in(table: pd.DataFrame) -> list[tuple[Series, int]]:
    """The same for a table of input energies."""
    return series_in(table.assign(at=INPUTS))


@dataclass(frozen=True)
class CheckpointFeatures:
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
class Representation(FoundCurves):
    """What one call found: one curve per run and kind of place.

    Attributes
    ----------
    features
        The numbers of each checkpoint.
    compared
        The comparisons of each checkpoint.
    """

    features: tuple[CheckpointFeatures, ...]
    compared: tuple[ComparedSides, ...]

    @property
    def measured(self) -> int:
        """Number of checkpoints with numbers, of whatever kinds of places."""
        return len({(one.curve.run, one.file.step) for one in self.features})

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
            for one in self.features
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


def _place(curve: Curve, step: int) -> dict[str, Any]:
    return {
        "run": curve.run,
        "step": step,
        "text": curve.task,
        "features": curve.settings["features"],
    }


def _probe(file: FeatureFile) -> dict[str, Any]:
    return {"probe": file.probe, "window": file.window or None, "documents": file.documents}
