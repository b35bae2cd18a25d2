"""Whether a results folder holds the answer to a question already.

Loads neither numpy nor a layout, and opens only the record and the tables: a call with nothing to
do should cost nothing.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rankscope.addresses import is_address, is_stand_in
from rankscope.checkpoints.file_states import state_of
from rankscope.checkpoints.skip import Skip
from rankscope.pipeline.call_results import CallResult, sweep_results
from rankscope.pipeline.seen_files import (
    SEEN,
    VARIABLES,
    Seen,
    States,
    digest_of_question,
    in_folders,
    seen_in,
    states_of,
    states_of_package,
)
from rankscope.results.record import has_its_files, sound_record, write_entry

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
    out
        The results folder.
    record, stores
        Names of the record and of the stores of the answer in it.
    files
        Other files that are read.
    beside
        Names of other files in it that the answer depends on.
    """

    about: object
    paths: tuple[str | Path, ...]
    out: Path
    record: str
    stores: tuple[str, ...]
    files: tuple[Path, ...] = ()
    beside: tuple[str, ...] = ()

    def look(self) -> Seen | None:
        """All files that are asked about, as they are now; None where not all are here."""
        if any(is_address(path) or not Path(path).exists() for path in self.paths):
            return None
        seen = Seen.below(self.paths, without=self.out)
        states = {str(path.resolve()): state_of(path) for path in self.files}
        return replace(seen, files=seen.files | states)

    def recorded(self, now: Seen | None = None) -> dict[str, Any] | None:
        """Content of the record, if it is of this question and no file has changed since.

        Parameters
        ----------
        now
            The files as they are now, if the caller has looked.
        """
        sweep_results(self.out)
        record = sound_record(self.out / self.record)
        seen = seen_in(record)
        if seen is None:
            return None
        now = now or self.look()
        if now is None or seen["digest"] != self._digest(now.files, in_folders(seen["folders"])):
            return None
        # Last, since it reads every table.
        return record if has_its_files(self.out / self.record, record) else None

    def seen(
        self, before: Seen, folders: Iterable[str], *, runs: Iterable[str | Path]
    ) -> dict[str, Any] | None:
        """What is recorded about the files once the answer is found and its stores written.

        Parameters
        ----------
        before
            The files as they were before any was opened.
        folders
            Where files were read from.
        runs
            Folders of the runs.

        Returns
        -------
        None if files have changed since, are too recent for a change to show, or are not here, or
        if a run is not below the paths, so that a new checkpoint of it would not show.
        """
        apart = before.apart(folders)
        is_seen = all(before.covers(run) for run in runs)
        if not is_seen or any(is_stand_in(Path(folder, "file")) for folder in apart):
            return None
        beside, now = in_folders(apart), self.look()
        if now is None or now.files != before.files or not before.is_settled(beside):
            return None
        return {"digest": self._digest(before.files, beside), "folders": apart}

    def remember(self, found: FoundCurves, before: Seen | None) -> None:
        """Note in the record of a complete answer what `seen` says, for the next call."""
        if before is None or found.key is None or found.skips or not found.measured:
            return
        seen = self.seen(before, found.folders, runs=[curve.path for curve in found.curves])
        if seen is not None:
            seen[CURVES] = [[curve.path, curve.folder] for curve in found.curves]
            seen[PLANNED] = sorted(map(list, found.planned))
            write_entry(self.out / self.record, SEEN, seen)

    def _digest(self, files: States, beside: States) -> str:
        paths = [(str(path), str(Path(path).resolve())) for path in self.paths]
        # Runs may name their data, and adapters their base model, relative to the working folder.
        here = [str(Path.cwd()), *(os.environ.get(name) for name in VARIABLES)]
        own = states_of(self.out / name for name in self.stores)
        others = {name: state_of(self.out / name) for name in self.beside}
        about = self.about, paths, here
        return digest_of_question(about, files, beside, own, others, states_of_package())


class CurvePlace(NamedTuple):
    """The run that a curve belongs to, and the folder of its numbers."""

    path: str
    folder: str


@dataclass(frozen=True)
class Recalled(CallResult):
    """An earlier answer that the states of all files confirm, with its folder and its record."""

    out: Path
    record: Mapping[str, Any]

    @classmethod
    def of(cls, record: Mapping[str, Any], out: Path) -> Self:
        """The answer of an intact record."""
        skips, notes = (
            tuple(Skip(**line) for line in record[name]) for name in ("skipped", "notes")
        )
        return cls(skips, notes, (), 0, record["key"], out=out, record=record)


@dataclass(frozen=True)
class RecalledCurves(Recalled):
    """An earlier answer of `evaluate` or `represent`."""

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
        own = table[[name in self.planned for name in names]].reset_index(drop=True)
        own.attrs.clear()  # those of a folder, which a call does not state
        return own
