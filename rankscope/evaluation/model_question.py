"""`ModelQuestion`: what calls that run models on text have in common, as it was given.

Loads no layout: a call with nothing to do should cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rankscope.pipeline.recall import Recall

if TYPE_CHECKING:
    from rankscope.checkpoints.survey import Survey
    from rankscope.evaluation.open_model import Device, OpenOptions, Precision
    from rankscope.pipeline.choices import Steps


@dataclass(frozen=True, kw_only=True)
class ModelQuestion:
    """The parameters that `rankscope.evaluate` and `rankscope.represent` share.

    Attributes
    ----------
    record, stores, beside
        As in `rankscope.pipeline.recall.Recall`.
    """

    record: ClassVar[str]
    stores: ClassVar[tuple[str, ...]]
    beside: ClassVar[tuple[str, ...]] = ()

    paths: tuple[str | Path, ...]
    text: tuple[str | Path, ...] = ()
    steps: Steps | None = None
    window: int | None = None
    prefix: str = "auto"
    tokenizer: str | Path | None = None
    device: Device = "cpu"
    precision: Precision = "float32"
    layout: str | None = None
    base: str | Path | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name, given in list(vars(self).items()):
            if isinstance(given, Iterable) and not isinstance(given, str | tuple):
                object.__setattr__(self, name, list(given))  # it may be an iterator

    def options(self) -> OpenOptions:
        """How models are opened; raises `WrongSettingError` for a wrong setting."""
        from rankscope.evaluation.open_model import OpenOptions

        return OpenOptions(
            tokenizer=None if self.tokenizer is None else str(self.tokenizer),
            prefix=self.prefix,
            device=self.device,
            precision=self.precision,
            trust_remote_code=self.trust_remote_code,
        )

    def survey(self) -> Survey:
        """The runs at the paths."""
        from rankscope.pipeline.curves import survey_here

        return survey_here(self.paths, layout=self.layout, base=self.base)

    def recall(self, out: Path) -> Recall:
        """The question to a results folder.

        Raises
        ------
        WrongSettingError
            If text does not exist.
        """
        from rankscope.evaluation.text_sets import text_sets

        sets = text_sets(map(str, self.text))
        asked = [str(one) if isinstance(one, Path) else one for one in astuple(self)[1:]]
        return Recall(
            about=([str(one) for one in self.paths], asked, [(s.name, s.paths) for s in sets]),
            paths=(*self.paths, *self._read()),
            out=out,
            record=self.record,
            stores=self.stores,
            files=tuple(path for one in sets for path in one.paths),
            beside=self.beside,
        )

    def _read(self) -> list[str | Path]:
        """What is read besides runs and text."""
        return [one for one in (self.tokenizer, self.base) if one is not None]
