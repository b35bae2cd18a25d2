"""`Recall`: what a call of `represent` asks, and whether a results folder has its answer.

As `rankscope.analysis.question` does for `analyze`: it loads neither numpy nor a layout, and opens
only the record and the tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankscope.addresses import is_address
from rankscope.checkpoints.file_states import state_of
from rankscope.pipeline.call_results import sweep_results
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


@dataclass(frozen=True)
class Recall:
    """A question to a results folder.

    Attributes
    ----------
    about
        All that was asked for, as plain values.
    paths
        Folders that are read, with everything below them.
    files
        Other files that are read.
    out
        The results folder.
    record, stores
        Names of the record and of the stores of the answer in it.
    beside
        Names of other files in it that the answer depends on.
    """

    about: object
    paths: tuple[str | Path, ...]
    files: tuple[Path, ...]
    out: Path
    record: str
    stores: tuple[str, ...]
    beside: tuple[str, ...] = ()

    def look(self) -> Seen | None:
        """All files that are asked about, as they are now; None where not all are here."""
        if any(is_address(path) or not Path(path).exists() for path in self.paths):
            return None
        seen = Seen.below(self.paths, without=self.out)
        states = {str(path.resolve()): state_of(path) for path in self.files}
        return replace(seen, files=seen.files | states)

    def seen(self, before: Seen | None, folders: Iterable[str]) -> dict[str, Any] | None:
        """What the record says about the files once the answer is found and stored.

        Parameters
        ----------
        before
            The files as they were before any was opened.
        folders
            Where other files were read from.

        Returns
        -------
        None if files have changed since, or are too recent for a further change to show.
        """
        if before is None:
            return None
        apart = before.apart(folders)
        beside, now = in_folders(apart), self.look()
        if now is None or now.files != before.files or not before.is_settled(beside):
            return None
        return {"digest": self._digest(before.files, beside), "folders": apart}

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

    def remember(self, seen: dict[str, Any] | None) -> None:
        """Note in a record that holds the answer what was seen, for the next call."""
        if seen is not None:
            write_entry(self.out / self.record, SEEN, seen)

    def _digest(self, files: States, beside: States) -> str:
        paths = [(str(path), str(Path(path).resolve())) for path in self.paths]
        variables = [os.environ.get(name) for name in VARIABLES]
        own = states_of(self.out / name for name in self.stores)
        others = {name: state_of(self.out / name) for name in self.beside}
        about = self.about, paths, variables
        return digest_of(about, files, beside, own, others, states_of_package())
