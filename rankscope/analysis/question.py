"""`Question`: what a call of `analyze` asks, and whether a results folder holds its answer already.

Loads neither numpy nor a layout: a call with nothing to do should cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.pipeline.recall import Recall, Recalled
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    COLUMNS,
    MEASURED,
    SPECTRA_FOLDER,
    SUBSPACE_COLUMNS,
    SUBSPACES_FOLDER,
)

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.analysis.request import Selection, Windows
    from rankscope.checkpoints.survey import Survey
    from rankscope.pipeline.choices import Layers, Names, Steps
    from rankscope.pipeline.seen_files import Seen


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

    def recall(self, out: Path) -> Recall:
        """The question to a results folder."""
        given = (self.base, self.since, self.family)
        beside = (path for path in given if path is not None and Path(path).exists())
        asked = [str(one) if isinstance(one, Path) else one for one in astuple(self)[1:]]
        return Recall(
            about=(asked, COLUMNS, SUBSPACE_COLUMNS),
            paths=(*self.paths, *beside),
            out=out,
            record=ANALYSIS_RECORD,
            stores=(SPECTRA_FOLDER, SUBSPACES_FOLDER),
        )

    def recalled(self, out: Path, looked: Seen | None = None) -> RecalledAnalysis | None:
        """The last analysis in ``out``, if it is the answer and no file has changed since.

        Parameters
        ----------
        looked
            The files as they are now, if the caller has looked.
        """
        record = self.recall(out).recorded(looked)
        return None if record is None else RecalledAnalysis.of(record, out)


@dataclass(frozen=True)
class RecalledAnalysis(Recalled):
    """An earlier analysis whose results still hold."""

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import open_results

        return open_results(self.out).metrics

    @property
    def measured(self) -> int:
        """Number of rows that are measurements."""
        return sum(count for status, count in self.record["status"].items() if status in MEASURED)
