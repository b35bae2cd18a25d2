"""What `evaluate` and `represent` share: numbers of a run on one text, step by step.

Both open the models of runs on this machine, and both keep one file per step and `Curve`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rankscope.addresses import is_address
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.skip import Skip
from rankscope.checkpoints.survey import Survey
from rankscope.errors import WrongSettingError
from rankscope.pipeline.call_results import CallResult
from rankscope.pipeline.choices import Numbers
from rankscope.pipeline.engine import Failure, Task, TaskT
from rankscope.pipeline.execution import EntryT, Plan, Plans, skip_of_failure
from rankscope.results.run_folders import run_folder_name


@dataclass(frozen=True)
class Curve:
    """The numbers of one run on one task with the same settings: one file per step.

    Attributes
    ----------
    folder
        Where they are, within the results.
    settings
        All that they depend on except the checkpoint and its tokenizer.
    """

    run: str
    path: str
    task: str
    folder: str
    settings: dict[str, Any]


CURVE = tuple(field.name for field in fields(Curve))


def recorded_curve(known: Mapping[str, Any]) -> Curve:
    """A curve from a record; raises one of `DAMAGE` if it is not one.

    Its folder is given the name that it has by now: see `rankscope.results.run_folders`.
    """
    curve = Curve(*(known[name] for name in CURVE))
    texts = (curve.run, curve.path, curve.task, curve.folder)
    if not all(isinstance(text, str) for text in texts) or not isinstance(curve.settings, dict):
        raise TypeError("an entry is not of its type")
    folder = Path(curve.folder)
    if folder.is_absolute() or ".." in folder.parts or "\0" in curve.folder:
        raise ValueError("numbers are not within the results")
    store, _, below = folder.parts
    return replace(curve, folder=f"{store}/{run_folder_name(curve.run)}/{below}")


def curve_path(out: Path, folder: str, step: int) -> Path:
    """File of one step of a curve."""
    return out / folder / f"step-{step:08d}.safetensors"


class CurveTask(Task, Protocol):
    """One step of a curve to compute."""

    @property
    def curve(self) -> Curve:
        """Where its result goes."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What it is computed from."""


CurveTaskT = TypeVar("CurveTaskT", bound=CurveTask)


class CurveStore(Generic[CurveTaskT, EntryT]):
    """A store with one file per step of a curve, whose entries are the results as they are."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def path(self, plan: Plan[CurveTaskT]) -> Path:
        """File of the one task of a plan."""
        return curve_path(self._out, plan.tasks[0].curve.folder, plan.step)

    def entries(self, task: CurveTaskT, result: EntryT) -> list[EntryT]:
        """The result as it is."""
        return [result]

    def failed(self, task: CurveTaskT, failure: Failure) -> tuple[list[EntryT], Skip]:
        """Nothing, and why."""
        return [], skip_of_failure(failure, task.checkpoint.path)


class CurvePlans(Plans[TaskT], ABC, Generic[TaskT]):
    """The plans of all runs: for each checkpoint, one per curve that it is a step of.

    Parameters
    ----------
    steps
        The requested steps; None for all.
    about
        What else the results depend on, as plain values.

    Attributes
    ----------
    curves
        Where the numbers of each run go, for the plans so far.
    planned
        What identifies each task in the plans so far: its series and step, as in the table.
    folders
        Where files are read from, for the plans so far.
    """

    def __init__(self, found: Survey, steps: Numbers | None, *about: object) -> None:
        self._asked = {
            run.name: [c for c in run if steps is None or c.step in steps] for run in found.runs
        }
        self.curves: list[Curve] = []
        self.planned: set[tuple[Any, ...]] = set()
        self.folders: set[str] = set()
        super().__init__(self._iter_plans(found.runs), *about)

    @abstractmethod
    def _iter_plans(self, runs: Sequence[Run]) -> Iterator[Plan[TaskT]]:
        """The plans, made on demand."""

    @property
    @abstractmethod
    def count(self) -> int:
        """Largest possible number of plans."""

    @property
    def asked(self) -> dict[str, tuple[int, ...]]:
        """The requested steps, by run name."""
        return {run: tuple(c.step for c in some) for run, some in self._asked.items()}

    @property
    def found(self) -> dict[str, Any]:
        """Fields of `FoundCurves`, once the plans are carried out."""
        return {
            "curves": tuple(self.curves),
            "asked": self.asked,
            "planned": frozenset(self.planned),
            "folders": frozenset(self.folders),
        }


@dataclass(frozen=True)
class FoundCurves(CallResult):
    """What one call found.

    Attributes
    ----------
    curves
        Where the numbers with this call's settings are.
    asked
        The requested steps, by run name.
    planned, folders
        As in `CurvePlans`; what the call skipped is not among them.
    """

    curves: tuple[Curve, ...]
    asked: Mapping[str, tuple[int, ...]]
    planned: frozenset[tuple[Any, ...]]
    folders: frozenset[str]


def survey_here(
    paths: Iterable[str | Path], *, layout: str | None = None, base: str | Path | None = None
) -> Survey:
    """The survey of paths on this machine.

    Raises
    ------
    WrongSettingError
        If one is elsewhere: models are opened by programs that read whole files here.
    """
    paths = list(paths)
    for path in paths:
        if is_address(path):
            message = "is elsewhere, and models are evaluated on this machine: copy the run here"
            raise WrongSettingError(message, path=path)
    return survey(paths, layout=layout, base=base)
