"""`Monitor`: measuring a model while it trains, without checkpoints."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rankscope.analysis.request import Selection
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.options import Options
from rankscope.durable import require_writable
from rankscope.errors import RankscopeWarning, WrongSettingError, require_folder
from rankscope.monitoring.live_model import GRADIENT, adapter_states, live_model
from rankscope.monitoring.matrix_groups import LIVE_COMPONENTS, Group, Places, groups_of
from rankscope.monitoring.messages import Anew, Copy, EndOfStep, ModelPlan, Opening, Restarted
from rankscope.monitoring.recorder_process import RecorderProcess
from rankscope.monitoring.sampling_clock import SamplingClock
from rankscope.monitoring.snapshots import NotAsPlanned, Snapshots
from rankscope.new_cycle import listen, stop_listening
from rankscope.pipeline.choices import Layers, Names, names_of

if TYPE_CHECKING:
    from torch import nn

    from rankscope.watching.mirrors import MirrorName

DEFAULT = ("weight", "adapter", "factor", "update", "gradient")
WAITING_BYTES = 2**30  # of copies that are not measured yet, beyond those that updates begin at
MOST_DEATHS = 3
GRADIENTS = (
    "of the batches of the step: as the optimizer found it, accumulated, without the scale of "
    "torch's GradScaler, and clipped if the loop clips it"
)


@dataclass(frozen=True)
class Cost:
    """What a monitor has cost.

    Attributes
    ----------
    seconds
        For which the training waited.
    elapsed
        Seconds since the first call.
    processor_seconds
        Of the process that decomposes, which runs beside the training with the lowest priority.
    """

    seconds: float
    elapsed: float
    processor_seconds: float

    @property
    def share(self) -> float:
        """Part of the time for which the training waited."""
        return self.seconds / self.elapsed if self.elapsed else 0.0


class Monitor:
    """Measures a model's matrices while it trains, into a results folder like that of `analyze`.

    A call to `step` copies matrices, and a separate process decomposes the copies: the training
    waits only for copies. Each row has the step at which its matrix was copied. If the share of
    time does not allow all matrices at once, they take turns, and the record says how many a step
    has.

    Parameters
    ----------
    model
        Any torch module, including compiled ones, those wrapped by DDP, or with adapters of PEFT or
        rankscope.
    out
        Results folder. A run that is resumed continues what is there.
    every
        Steps between two rounds of measurements; the first call also begins one.
    components
        Which matrices: ``weight``, ``adapter``, ``factor``, ``update`` and ``gradient`` by default;
        ``base`` and ``cumulative_update`` on request. Updates begin where their matrix was last
        measured, and cumulative updates where it was first measured.
    roles, layers
        As for `analyze`.
    share
        The share of the training's time that copies may take; None for no limit. The first copy of
        each matrix is made in any case, but counts.
    run
        Name of the run in the table.
    unit
        What its steps count.
    cosines
        Whether to measure ``update_cosine``, for which a second copy of the matrices is kept.
    device
        A torch device for the decompositions, such as ``cuda``; the CPU by default.
    nice
        How readily the decomposing process gives way to others when processors are busy: from 0,
        not at all, to 19, the most.
    config
        Config of the model, with the numbers of its heads; ``model.config`` by default.
    family
        As for `analyze`.
    to, columns
        Where the recorder mirrors columns of the table, as `rankscope watch` does.
    scratch
        Folder for copies; by default shared memory, or where temporary files are. If ``update`` is
        among the components, it always holds one copy of the chosen matrices.

    Raises
    ------
    WrongSettingError
        If a setting is unknown or out of its range, or the model has none of the requested
        matrices.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    >>> import rankscope as rs, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with rs.Monitor(model, "monitored", every=2, share=None) as monitor:
    ...     for step in range(1, 5):
    ...         model(torch.ones(3, 8)).square().mean().backward()
    ...         optimizer.step()
    ...         monitor.step(step)
    ...         optimizer.zero_grad()
    >>> table = rs.open_results("monitored").metrics
    >>> table.groupby(["component", "step"])["name"].count().to_dict()
    ... # doctest: +NORMALIZE_WHITESPACE
    {('gradient', 1): 2, ('gradient', 2): 2, ('gradient', 4): 2, ('update', 2): 2,
     ('update', 4): 2, ('weight', 1): 2, ('weight', 2): 2, ('weight', 4): 2}
    """

    def __init__(
        self,
        model: nn.Module,
        out: str | Path,
        *,
        every: int,
        components: Names | None = None,
        roles: Names | None = None,
        layers: Layers | None = None,
        share: float | None = 0.02,
        run: str = "run",
        unit: str = "step",
        cosines: bool = False,
        device: str | None = None,
        nice: int = 10,
        config: Mapping[str, Any] | None = None,
        family: str | Path | None = None,
        to: MirrorName | None = None,
        columns: Names | None = None,
        scratch: str | Path | None = None,
    ) -> None:
        if every < 1:
            raise WrongSettingError(f"`every` is {every}: give 1 or more")
        if share is not None and not 0 < share <= 1:
            raise WrongSettingError(f"`share` is {share}: give a number above 0 and at most 1")
        named = names_of(components or DEFAULT, LIVE_COMPONENTS, setting="components")
        self._selection = Selection.of(components=named, roles=roles, layers=layers)
        chosen = Options(family=None if family is None else read_family(family))
        self._look = partial(live_model, model, config=config, options=chosen)
        self.model, self._out = model, Path(out)
        self._plan()
        if not self._groups:
            message = "the model has no matrix of the `components`, `roles` and `layers` asked for"
            raise WrongSettingError(message)
        require_folder(self._out)
        require_writable(self._out)
        self._clock = SamplingClock(share, every)
        self._snapshots = Snapshots(None if scratch is None else Path(scratch))
        self._opening = Opening(
            out=str(self._out),
            run=run,
            unit=unit,
            folder=str(self._snapshots.folder),
            selection=self._selection,
            cosines=cosines,
            device=device,
            nice=nice,
            to=to,
            columns=_mirrored(to, columns),
            about={"every": every, "share": share, "device": device, "gradient": GRADIENTS},
        )
        self._recorder: RecorderProcess | None = None
        self._last: int | None = None
        self._told: int | None = None
        self._restarts: dict[int, bool] = {}
        self._deaths = 0
        self._said = set[str]()
        self._warnings = list[str]()
        self._owner = os.getpid()
        atexit.register(self.close)
        listen(self)

    def step(self, step: int) -> None:
        """Measure what is due at this step, if anything is.

        Call it after every step of the optimizer and before `zero_grad`, and at the start of the
        training with the steps done before. Trouble with a measurement never raises an error; it is
        a `RankscopeWarning`.

        Parameters
        ----------
        step
            Optimizer steps completed.

        Raises
        ------
        WrongSettingError
            If it is not a whole number of 0 or more.
        """
        step = _whole(step)
        if os.getpid() != self._owner or self._deaths >= MOST_DEATHS:
            return
        if self._told is not None and step < self._told:  # goes on from an earlier state
            self._restarts = {at: how for at, how in self._restarts.items() if at < step}
        self._told = step
        with self._clock.counting():
            if self._clock.is_due(step):
                self._measure(step)
        self._warn()

    def restarted(self, step: int, *, in_float64: bool = True) -> None:
        """Report that all adapters were merged after this step, and new ones begun.

        Call it after the restart, and `step` for the same step before. The monitor notices restarts
        by `rankscope.relora` without it.

        Parameters
        ----------
        step
            Optimizer steps completed by then.
        in_float64
            Whether the product was formed and added in float64, and rounded once, as rankscope
            does; otherwise it was formed in the format of the weights, whose rounding then counts.

        Raises
        ------
        WrongSettingError
            If ``step`` is not a whole number of 0 or more.
        """
        step = _whole(step)
        if os.getpid() != self._owner or step in self._restarts:
            return
        self._restarts[step] = in_float64
        if self._recorder is not None:
            self._recorder.send(Restarted(step, in_float64))
        self._plan()

    def hear_restart(self, step: int | None) -> None:
        """What `relora.restart` calls: after the last step, if it does not know which it was."""
        at = self._told if step is None else step
        if at is not None and self._deaths < MOST_DEATHS:
            self.restarted(at)

    @property
    def cost(self) -> Cost:
        """The cost so far."""
        seconds = 0.0 if self._recorder is None else self._recorder.seconds
        return Cost(self._clock.spent, self._clock.elapsed, seconds)

    def close(self) -> None:
        """Wait until all copies are measured, and write the table; this ends the measuring."""
        atexit.unregister(self.close)
        stop_listening(self)
        if os.getpid() != self._owner:
            return
        self._deaths = MOST_DEATHS
        if self._recorder is not None:
            self._recorder.close()
        self._snapshots.remove()
        self._warn()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _plan(self) -> None:
        """Look at the model as it is now."""
        self._live = self._look()
        contents, asked = self._live.contents, self._selection
        groups = groups_of(contents, asked.has, asked.components)
        self._groups = {group.key: group for group in groups}
        self._is_sent = False

    def _measure(self, step: int) -> None:
        if step in self._restarts:
            self._say("order", f"step {step} is not measured: call `step` before the restart")
            return
        recorder = self._recording()
        if recorder is None:
            return
        if tuple(adapter_states(self.model)) != self._live.states:
            self._plan()
        if not self._is_sent:
            recorder.send(ModelPlan(_plain(self._live.contents), self._groups))
            self._is_sent = True
        is_start = self._last is None  # where there may be no gradient yet
        if self._last is None:  # a recorder that replaces another does not know of restarts
            for at, in_float64 in self._restarts.items():
                recorder.send(Restarted(at, in_float64))
        if self._last is None or step <= self._last:
            recorder.send(Anew(step))
        self._last, taken, has_gradient = step, 0, False
        for key, group in self._clock.turn(self._groups):
            if recorder.waiting and recorder.waiting + group.nbytes > WAITING_BYTES:
                break
            places = self._copied(group)
            if places is None:
                break
            nbytes = sum(one.nbytes for one in (*group.tensors, *group.slopes))
            recorder.send(Copy(step, key, places, nbytes), nbytes)
            taken += len(key)
            has_gradient |= any(path.startswith(GRADIENT) for path in places)
        wants = any(group.gradients for group in self._groups.values())
        if taken and wants and not (has_gradient or is_start):
            self._say("gradient", f"step {step} has no gradients: call `step` before `zero_grad`")
        of = sum(map(len, self._groups))
        cost = self._clock.spent, self._clock.elapsed
        recorder.send(EndOfStep(step, taken, of, cost))

    def _copied(self, group: Group) -> Places | None:
        """Where the copies of a group are; None if there is none."""
        sources = self._live.sources
        try:
            own = self._snapshots.take(group.tensors, sources)
            return own | self._snapshots.take(group.slopes, sources)
        except NotAsPlanned as error:
            self._plan()
            self._say(
                str(error), f"{error} has changed its shape or format: the model is read again"
            )
        except OSError as error:
            self._say("room", f"there is no room for a copy, so matrices are missing: {error}")
        return None

    def _recording(self) -> RecorderProcess | None:
        """The recorder, which is started when it is first needed, and again if it has died."""
        if self._recorder is not None and self._recorder.is_alive:
            return self._recorder
        if self._recorder is not None:
            self._recorder.close()
            if self._recorder.is_refused:
                self._deaths = MOST_DEATHS
                self._snapshots.remove()
                return None
            self._deaths += 1
            self._snapshots.renew()
            self._is_sent, self._last = False, None
            end = (
                "nothing more is measured"
                if self._deaths >= MOST_DEATHS
                else "a new one is started"
            )
            message = "its recorder process died, perhaps for lack of memory; its copies are lost"
            self._say(f"died {self._deaths}", f"{message}: {end}")
            if self._deaths >= MOST_DEATHS:
                return None
        opening = replace(self._opening, folder=str(self._snapshots.folder))
        self._recorder = RecorderProcess(opening)
        return self._recorder

    def _say(self, what: str, message: str) -> None:
        """Warn once of each thing, after the measurement."""
        if what not in self._said:
            self._said.add(what)
            self._warnings.append(message)

    def _warn(self) -> None:
        said = self._warnings
        if self._recorder is not None:
            said += self._recorder.warnings
            self._recorder.warnings = []
        while said:
            warnings.warn(RankscopeWarning(said.pop(0)), stacklevel=3)


def _whole(step: int) -> int:
    """A step as given, if it is one: a wrong one would only be noticed in the recorder."""
    try:
        number = index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise WrongSettingError(f"`step` is {step!r}: give a whole number of 0 or more")
    return number


def _plain(contents: Contents) -> Contents:
    """The contents as the recorder needs them; the names that stand for files are not paths."""
    said = [
        tuple(replace(one, path="") for one in some) for some in (contents.skips, contents.notes)
    ]
    return replace(contents, account=(), skips=said[0], notes=said[1])


def _mirrored(to: MirrorName | None, columns: Names | None) -> tuple[str, ...] | None:
    """The columns to mirror; refuses a mirror that is not there."""
    from rankscope.statistics.quantities import QUANTITIES
    from rankscope.watching.mirrors import require_mirror

    if to is not None:
        require_mirror(to)
    return None if columns is None else names_of(columns, (*QUANTITIES,), setting="columns")
