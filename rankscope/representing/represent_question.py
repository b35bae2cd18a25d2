"""`RepresentQuestion`: what a call of `represent` asks, and whether a folder has its answer.

Loads no layout before that is known: a call with nothing to do should cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.pipeline.recall import Recall
from rankscope.representing.remembered import RememberedRepresentation
from rankscope.results.columns import (
    EVALUATION_FILE,
    EVALUATION_RECORD,
    REPRESENTATIONS_FOLDER,
    REPRESENTATIONS_RECORD,
)

if TYPE_CHECKING:
    from rankscope.evaluation.open_model import Device, Precision
    from rankscope.pipeline.choices import Names, Steps
    from rankscope.representing.probe_windows import Features


NOTHING_SEEN = "no checkpoint could be measured"


@dataclass(frozen=True, kw_only=True)
class RepresentQuestion:
    """The parameters of `rankscope.represent` that say what is measured, as they were given."""

    paths: tuple[str | Path, ...]
    text: tuple[str | Path, ...] = ()
    at: Names = "block"
    features: Features = "all"
    tokens: int | None = None
    compare: Names | None = None
    energy: Names = ()
    steps: Steps | None = None
    window: int | None = None
    kept: int = 2048
    prefix: str = "auto"
    tokenizer: str | Path | None = None
    device: Device = "cpu"
    precision: Precision = "float32"
    layout: str | None = None
    base: str | Path | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("at", "compare", "energy", "steps"):
            given = getattr(self, name)
            if isinstance(given, Iterable) and not isinstance(given, str | tuple):
                object.__setattr__(self, name, list(given))  # it may be an iterator

    def recall(self, out: Path) -> Recall:
        """The question to a results folder; raises `WrongSettingError` for text that is not there.

        Losses, which decide what is compared at equal loss, are those of an evaluation in it.
        """
        from rankscope.evaluation.text_sets import text_sets

        sets = text_sets(map(str, self.text))
        files = tuple(path for one in sets for path in one.paths)
        given = tuple(one for one in (self.tokenizer, self.base) if one is not None)
        asked = [str(one) if isinstance(one, Path) else one for one in astuple(self)[1:]]
        return Recall(
            about=([str(one) for one in self.paths], asked, [(s.name, s.paths) for s in sets]),
            paths=(*self.paths, *given),
            files=files,
            out=out,
            record=REPRESENTATIONS_RECORD,
            stores=(REPRESENTATIONS_FOLDER,),
            beside=(EVALUATION_FILE, EVALUATION_RECORD),
        )

    def remembered(self, out: Path) -> RememberedRepresentation | None:
        """The last answer in ``out``, if it is that of this question and no file has changed."""
        record = self.recall(out).recorded()
        return None if record is None else RememberedRepresentation.of(record, out)
