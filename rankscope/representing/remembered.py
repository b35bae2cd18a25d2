"""`RememberedRepresentation`: an answer of `represent` that the states of all files confirm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rankscope.pipeline.call_results import CallResult, recalled
from rankscope.pipeline.seen_files import SEEN

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.representing.represented import RecalledRepresentation, Representation

CURVES, PLANNED = "curves", "planned"  # of what a record says of what was seen


class CurvePlace(NamedTuple):
    """Of which run a curve is, and where its numbers are."""

    path: str
    folder: str


def described(found: Representation | RecalledRepresentation) -> dict[str, Any]:
    """What the record says of an answer, besides the files that it depends on."""
    return {
        CURVES: [[curve.path, curve.folder] for curve in found.curves],
        PLANNED: sorted([*series, step] for series, step in found.planned),
    }


@dataclass(frozen=True)
class RememberedRepresentation(CallResult):
    """An earlier answer, with its folder and its record."""

    out: Path
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any], out: Path) -> RememberedRepresentation:
        """The answer of an intact record."""
        return cls(**recalled(record), out=out, record=record)

    @property
    def curves(self) -> list[CurvePlace]:
        """The curves of the call, which are some of those in the record."""
        return [CurvePlace(*one) for one in self.record[SEEN][CURVES]]

    @property
    def measured(self) -> int:
        """Number of checkpoints with numbers, of whatever kinds of places."""
        return len({(run, step) for run, *_, step in self.record[SEEN][PLANNED]})

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of this call; the file holds those of other calls too."""
        from rankscope.representing.represented import series_in
        from rankscope.results.results import open_results

        table = open_results(self.out).representations
        own = {(tuple(series), step) for *series, step in self.record[SEEN][PLANNED]}
        return table[[name in own for name in series_in(table)]].reset_index(drop=True)
