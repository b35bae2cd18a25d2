"""TensorBoard, Weights & Biases and Trackio as mirrors of chosen columns of the table.

A scalar is named ``component/column/role``, as ``weight/per/q`` or ``update of a cycle/per/q``. It
is the mean over the matrices of the role, or their median where the quantity spans decades, as in
figures. What is not known, infinite, or known only as a lower bound is left out.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

from rankscope.durable import make_folder, safe_name
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.pipeline.choices import Names, names_of, require_name
from rankscope.results.measure import Row
from rankscope.results.summary_tables import component_text

MirrorName: TypeAlias = Literal["tensorboard", "wandb", "trackio"]
COLUMNS = ("per", "numerical_rank", "condition_number_r")
PROJECT = "rankscope"  # of wandb and trackio


class Mirror(Protocol):
    """Shows the scalars of one run elsewhere."""

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add the scalars of a step."""

    def close(self) -> None:
        """Wait until everything has arrived."""


class TensorBoardMirror:
    """Event files in ``OUT/tensorboard/RUN``; those of an earlier call no longer count."""

    def __init__(self, out: Path, run: str) -> None:
        # Not torch's writer, which an analysis does without.
        writer = import_module("tensorboard.summary.writer.event_file_writer")
        self._event: Any = import_module("tensorboard.compat.proto.event_pb2")
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        folder = out / "tensorboard" / safe_name(run)
        make_folder(folder)
        self._writer: Any = writer.EventFileWriter(str(folder))
        session = self._event.SessionLog(status=self._event.SessionLog.START)
        self._add(step=0, session_log=session)  # hides every point from step 0 on

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a point to the curve of each name."""
        values = [self._summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self._add(step=step, summary=self._summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()

    def _add(self, **content: Any) -> None:
        self._writer.add_event(self._event.Event(wall_time=time.time(), **content))


class WandbMirror:
    """A run of the project ``rankscope``; a later call for the same folder and run continues it."""

    def __init__(self, out: Path, run: str) -> None:
        wandb = import_module("wandb")
        self._run: Any = wandb.init(
            project=PROJECT,
            name=run,
            id=hashlib.blake2b(f"{out.resolve()}\n{run}".encode(), digest_size=8).hexdigest(),
            resume="allow",
            reinit="create_new",  # one for each run that is watched
            dir=str(out),
            settings=wandb.Settings(console="off"),
        )
        # wandb's own counter only grows; a later call sends the same steps again.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars, with ``step`` as one of them."""
        self._run.log({"step": step, **scalars})

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


class TrackioMirror:
    """A run of the local project ``rankscope``."""

    def __init__(self, out: Path, run: str) -> None:
        trackio = import_module("trackio")
        self._run: Any = trackio.init(project=PROJECT, name=run, resume="allow")

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Store the scalars of a step."""
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        """Wait until all is stored."""
        self._run.finish()


MIRRORS: Mapping[MirrorName, Callable[[Path, str], Mirror]] = {
    "tensorboard": TensorBoardMirror,
    "wandb": WandbMirror,
    "trackio": TrackioMirror,
}


class Mirrors:
    """The mirrors of one kind, one for each run, opened when its first step comes."""

    def __init__(self, kind: MirrorName, out: Path, columns: Sequence[str]) -> None:
        self._open, self._out, self._columns = MIRRORS[kind], out, columns
        self._by_run: dict[str, Mirror] = {}

    def write(self, run: str, step: int, rows: Sequence[Row]) -> None:
        """Add the rows of a step of a run."""
        if run not in self._by_run:
            self._by_run[run] = self._open(self._out, run)
        self._by_run[run].write(step, scalars_of(rows, self._columns))

    def close(self) -> None:
        """Close all of them."""
        for mirror in self._by_run.values():
            mirror.close()


@contextmanager
def open_mirrors(
    kind: MirrorName | None, *, out: str | Path, columns: Names | None = None
) -> Iterator[Mirrors | None]:
    """Mirror steps elsewhere within the block; None for no mirror.

    Parameters
    ----------
    kind
        ``tensorboard``, ``wandb`` or ``trackio``.
    out
        The results folder. The steps in its table are mirrored at once.
    columns
        Columns of the metrics table; ``per``, ``numerical_rank`` and ``condition_number_r`` by
        default.

    Raises
    ------
    WrongSettingError
        If a name is unknown, or the package of the mirror is not installed.
    """
    from rankscope.statistics.quantities import QUANTITIES
    from rankscope.watching.kept_rows import iter_table

    chosen = COLUMNS if columns is None else names_of(columns, (*QUANTITIES,), setting="columns")
    if kind is None:
        yield None
        return
    require_mirror(kind)
    mirrors = Mirrors(kind, Path(out), chosen)
    try:
        with suppress(RankscopeError):  # a damaged table is written again, and mirrored then
            for (run, step), rows in iter_table(Path(out)):
                mirrors.write(run, step, rows)
        yield mirrors
    finally:
        mirrors.close()


def require_mirror(kind: MirrorName) -> None:
    """Raise `WrongSettingError` if there is no such mirror or its package is not installed."""
    require_name(kind, get_args(MirrorName), setting="to")
    spec = find_spec(kind)
    if spec is None or spec.origin is None:  # they also write folders of their own name
        raise WrongSettingError(f'`to` {kind} needs {kind}: pip install "rankscope[{kind}]"')


def scalars_of(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, float]:
    """The scalars of one run and step, by their names."""
    from rankscope.results.results import table_of
    from rankscope.statistics.step_summary import summary

    table = table_of(rows)
    table = table.assign(window=table["window"].fillna(""))
    scalars = {}
    for (component, window, role), own in table.groupby(["component", "window", "role"]):
        for column in columns:
            (point,) = summary(own, column).to_dict("records")
            if math.isfinite(point["centre"]) and not point["bound"]:
                name = component_text(str(component), str(window))
                scalars[f"{name}/{column}/{role}"] = float(point["centre"])
    return scalars
