"""Whether a results folder holds the answer of `evaluate` or `represent` already.

As `rankscope.analysis.question` does for `analyze`: it loads neither numpy nor a layout, and opens
only the record and the tables.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rankscope.addresses import is_address
from rankscope.checkpoints.file_states import state_of
from rankscope.pipeline.call_results import CallResult, recalled, sweep_results
from rankscope.pipeline.seen_files import (
    SEEN,
    VARIABLES,
    Seen,
    States,
    digest_of,
    in_folders,
    seen_in,
    states_of,
    states_of_package,
)
from rankscope.results.record import intact_record, write_entry

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd

    from rankscope.pipeline.curves import FoundCurves

CURVES, PLANNED = "curves", "planned"  # beside the digest, in the entry of what a call saw


@dataclass(frozen=True)
class Recall:
    """A question to a results folder.

    Attributes
    ----------
    about
        All that was asked for, as plain values.
    paths
        Files and folders that are read, with everything below them.
    files
        Other files that are read.
    out
        The results folder.
    record, store
        Names of the record and of the store of the answer in it.
    beside
        Names of other files in it that the answer depends on.
    """

    about: object
    paths: tuple[str | Path, ...]
    files: tuple[Path, ...]
    out: Path
    record: str
    store: str
    beside: tuple[str, ...] = ()

    def look(self) -> Seen | None:
        """All files that are asked about, as they are now; None where not all are here."""
        if any(is_address(path) or not Path(path).exists() for path in self.paths):
            return None
        seen = Seen.below(self.paths, without=self.out)
        states = {str(path.resolve()): state_of(path) for path in self.files}
        return replace(seen, files=seen.files | states)

    def recorded(self) -> dict[str, Any] | None:
        """Content of the record, if it is of this question and no file has changed since."""
        sweep_results(self.out)
        record = intact_record(self.out / self.record)
        seen = seen_in(record)
        if seen is None:
            return None
        now = self.look()
        if now is None or seen["digest"] != self._digest(now.files, in_folders(seen["folders"])):
            return None
        return record

    def remember(self, found: FoundCurves, before: Seen | None) -> None:
        """Note in the record of a complete answer what the call saw, for the next one.

        Nothing is noted if a file has changed since, or is too recent for a change to show.

        Parameters
        ----------
        before
            The files as they were before any was opened.
        """
        if before is None or found.key is None or found.skips or not found.measured:
            return
        apart = before.apart(found.folders)
        beside, now = in_folders(apart), self.look()
        if now is None or now.files != before.files or not before.is_settled(beside):
            return
        seen = {
            "digest": self._digest(before.files, beside),
            "folders": apart,
            CURVES: [[curve.path, curve.folder] for curve in found.curves],
            PLANNED: sorted(map(list, found.planned)),
        }
        write_entry(self.out / self.record, SEEN, seen)

    def _digest(self, files: States, beside: States) -> str:
        paths = [(str(path), str(Path(path).resolve())) for path in self.paths]
        variables = [os.environ.get(name) for name in VARIABLES]
        own = states_of([self.out / self.store])
        others = {name: state_of(self.out / name) for name in self.beside}
        about = self.about, paths, variables
        return digest_of(about, files, beside, own, others, states_of_package())


class CurvePlace(NamedTuple):
    """The run that a curve belongs to, and the folder of its numbers."""

    path: str
    folder: str


@dataclass(frozen=True)
class RecalledCurves(CallResult):
    """An earlier answer, with its folder and its record."""

    out: Path
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any], out: Path) -> Self:
        """The answer of an intact record."""
        return cls(**recalled(record), out=out, record=record)

    @property
    def curves(self) -> list[CurvePlace]:
        """The curves of the call, which are some of those in the record."""
        return [CurvePlace(*one) for one in self.record[SEEN][CURVES]]

    @cached_property
    def planned(self) -> set[tuple[Any, ...]]:
        """As in `rankscope.pipeline.curves.FoundCurves`."""
        return {tuple(one) for one in self.record[SEEN][PLANNED]}

    @abstractmethod
    def _stored(self) -> tuple[pd.DataFrame, Iterable[tuple[Any, ...]]]:
        """The table in the folder, and for each row what ``planned`` has of its task."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of this call; the file holds those of other calls too."""
        table, names = self._stored()
        return table[[name in self.planned for name in names]].reset_index(drop=True)
