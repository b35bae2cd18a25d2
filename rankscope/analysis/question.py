"""`Question`: what a call of `analyze` asks, and whether a results folder holds its answer already.

Loads neither numpy nor a layout: a call with nothing to do should cost nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.addresses import is_stand_in
from rankscope.analysis.recalled import RecalledAnalysis
from rankscope.pipeline.call_results import recalled, sweep_results
from rankscope.pipeline.seen_files import (
    VARIABLES,
    Seen,
    States,
    digest_of,
    in_folders,
    seen_in,
    states_of,
    states_of_package,
)
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    COLUMNS,
    SPECTRA_FOLDER,
    SUBSPACE_COLUMNS,
    SUBSPACES_FOLDER,
)
from rankscope.results.record import has_its_files, sound_record

if TYPE_CHECKING:
    from rankscope.analysis.request import Selection, Windows
    from rankscope.checkpoints.survey import Survey
    from rankscope.pipeline.choices import Layers, Names, Steps


@dataclass(frozen=True, kw_only=True)
class Question:
    """The parameters of `rankscope.analyze` that say what is measured, as they were given."""

    paths: tuple[str | Path, ...]
    components: Names | None = None
    roles: Names | None = None
    layers: Layers | None = None
    steps: Steps | None = None
    windows: Windows = "steps"
    layout: str | None = None
    family: str | Path | None = None
    trust_pickle: bool = False
    base: str | Path | None = None
    since: str | Path | None = None
    subspaces: int | None = None
    against: Names | None = None

    def __post_init__(self) -> None:
        for name in ("components", "roles", "layers", "steps", "against"):
            given = getattr(self, name)
            if isinstance(given, Iterable) and not isinstance(given, str | tuple):
                object.__setattr__(self, name, list(given))  # it may be an iterator

    def selection(self) -> Selection:
        """The matrices that are asked for; raises `WrongSettingError` for a wrong setting."""
        from rankscope.analysis.origin import open_origin
        from rankscope.analysis.request import Selection

        start = None
        if self.since is not None:
            start = open_origin(self.since, trust_pickle=self.trust_pickle)
        return Selection.of(
            components=self.components,
            roles=self.roles,
            layers=self.layers,
            steps=self.steps,
            since=start,
            windows=self.windows,
            subspaces=self.subspaces,
            against=self.against,
        )

    def survey(self) -> Survey:
        """The runs at the paths."""
        from rankscope.checkpoints.discovery import survey

        return survey(
            self.paths,
            layout=self.layout,
            family=self.family,
            trust_pickle=self.trust_pickle,
            base=self.base,
        )

    def look(self, out: Path) -> Seen:
        """All files that are asked about, as they are now."""
        given = (self.base, self.since, self.family)
        beside = [path for path in given if path is not None and Path(path).exists()]
        return Seen.below((*self.paths, *beside), without=out)

    def seen(self, before: Seen, out: Path, folders: Iterable[str]) -> dict[str, Any] | None:
        """What is recorded about the files once the answer is found and its store written.

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
        apart = before.apart(folders)
        if any(is_stand_in(Path(folder, "file")) for folder in apart):
            return None
        beside = in_folders(apart)
        if self.look(out).files != before.files or not before.is_settled(beside):
            return None
        return {"digest": self._digest(before.files, beside, out), "folders": apart}

    def recall(self, out: Path, looked: Seen | None = None) -> RecalledAnalysis | None:
        """The last analysis in ``out``, if it is the answer and no file has changed since.

        Parameters
        ----------
        looked
            The files as they are now, if somebody has looked.
        """
        sweep_results(out)
        record = sound_record(out / ANALYSIS_RECORD)
        seen = seen_in(record)
        if seen is None:
            return None
        files, beside = (looked or self.look(out)).files, in_folders(seen["folders"])
        if seen["digest"] != self._digest(files, beside, out):
            return None
        if not has_its_files(out / ANALYSIS_RECORD, record):  # last, since it reads all of them
            return None
        return RecalledAnalysis(**recalled(record), out=out, record=record)

    def _digest(self, files: States, beside: States, out: Path) -> str:
        """Digest of the question, of this version, of what was read, and of the stores."""
        asked = [str(one) if isinstance(one, Path) else one for one in astuple(self)]
        paths = [(str(path), str(Path(path).resolve())) for path in self.paths]
        columns = COLUMNS, SUBSPACE_COLUMNS
        variables = [os.environ.get(name) for name in VARIABLES]
        about = asked[1:], paths, variables, columns
        stores = states_of(out / name for name in (SPECTRA_FOLDER, SUBSPACES_FOLDER))
        return digest_of(about, files, beside, stores, states_of_package())
