"""TensorBoard and Weights & Biases, as mirrors of ``metrics.jsonl``.

The log is the record of a run, and a mirror shows its numbers elsewhere. So a mirror that fails is
reported once, and the training continues without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rankscope.durable import make_folder, read_file, write_file
from rankscope.errors import WrongSettingError, printable
from rankscope.training.config import Config, LogConfig
from rankscope.training.config_file import flat_config
from rankscope.training.run_folder.metrics_log import MetricsLog, Value


class Mirror(Protocol):
    """Shows the numbers of a log elsewhere."""

    lacks_from: int  # lines of this step and later ones are not in it yet

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step, by their names."""

    def close(self) -> None:
        """Wait until everything has arrived."""


class TensorBoardMirror:
    """Event files in ``RUN/tensorboard``; those of an earlier start count up to ``step``.

    Lines that were logged while the setting was off are missing, unless it was off from the
    beginning.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        folder = run / "tensorboard"
        # Hides the step that the run resumes from, and everything after it.
        self.lacks_from = step if folder.exists() else 0
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = writer(str(folder), purge_step=self.lacks_from)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a point to the curve of each name."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()  # so that a killed process leaves no gap

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()


class WandbMirror:
    """A run of a Weights & Biases project, remembered in ``RUN/wandb/PROJECT.json``.

    What wandb has not sent when its process is killed is lost. So lines count as sent only once
    wandb has finished; until then they are sent again, and equal points are drawn over each other.
    """

    def __init__(self, run: Path, *, config: Config) -> None:
        project = config.log.wandb
        make_folder(run / "wandb")
        self._memory = run / "wandb" / f"{project}.json"
        known = json.loads(read_file(self._memory)) if self._memory.exists() else {}
        self.lacks_from: int = known.get("lacks_from", 0)
        self._last = self.lacks_from
        wandb = import_module("wandb")
        self._run: Any = wandb.init(
            project=project,
            dir=str(run),
            name=run.name,
            id=known.get("id"),
            resume="allow",
            config=flat_config(config),
            allow_val_change=True,
            settings=wandb.Settings(console="off"),  # else it records the progress bar as text
        )
        self._remember(self.lacks_from)
        # wandb's own counter only grows, and drops lines below it. But a step may have two lines,
        # and a resumed run goes back to the step of its state.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers, with ``step`` as one of them."""
        self._run.log({"step": step, **numbers})
        self._last = step

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()
        self._remember(self._last)  # this step may get more lines

    def _remember(self, lacks_from: int) -> None:
        memory = {"id": self._run.id, "lacks_from": lacks_from}
        write_file(self._memory, json.dumps(memory).encode())


class Trackers:
    """The mirrors of one run; a mirror that fails is dropped with a warning."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._mirrors: dict[str, Mirror] = {}

    def add(self, setting: str, open_mirror: Callable[[], Mirror], log: MetricsLog) -> None:
        """Open the mirror of a setting, and bring it up to date with the log."""
        with self._dispensable(setting):
            mirror = open_mirror()
            for step, values in log.iter_lines():
                if step >= mirror.lacks_from and (numbers := numbers_of(values)):
                    mirror.write(step, numbers)
            self._mirrors[setting] = mirror

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Mirror one line of the log; never raises an `Exception`."""
        if numbers := numbers_of(values):
            for setting, mirror in list(self._mirrors.items()):
                with self._dispensable(setting):
                    mirror.write(step, numbers)

    def close(self) -> None:
        """Finish every mirror; never raises an `Exception`."""
        for setting, mirror in list(self._mirrors.items()):
            with self._dispensable(setting):
                mirror.close()

    @contextmanager
    def _dispensable(self, setting: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # these packages may raise anything
            self._mirrors.pop(setting, None)
            reason = printable(f"{type(error).__name__}: {error}")
            self._warn(f"{setting} failed, and is off until the next start: {reason}")


def require_trackers(log: LogConfig) -> None:
    """Raise `WrongSettingError` if the package of a mirror is not installed."""
    for name, value in (("tensorboard", log.tensorboard), ("wandb", log.wandb)):
        spec = find_spec(name) if value else None
        # Both write folders of their own name, which Python takes for empty packages.
        if value and (spec is None or spec.origin is None):
            shown = "true" if value is True else repr(value)
            raise WrongSettingError(
                f"log.{name} = {shown} needs {name}: pip install 'rankscope[{name}]'"
            )


@contextmanager
def open_trackers(config: Config, *, step: int, warn: Callable[[str], None]) -> Iterator[Trackers]:
    """Open the mirrors that ``log.tensorboard`` and ``log.wandb`` name; close them at the end.

    A new mirror, whose setting was off until now, gets the whole log.

    Parameters
    ----------
    config
        The run; its log must hold nothing later than ``step``.
    step
        Where the run starts or resumes.
    warn
        Called with one sentence for each mirror that fails.

    Raises
    ------
    WrongSettingError
        If a package is not installed. Every other failure is a warning.
    """
    require_trackers(config.log)
    run, trackers = Path(config.out), Trackers(warn)
    log = MetricsLog(run)
    if config.log.tensorboard:
        trackers.add("log.tensorboard", lambda: TensorBoardMirror(run, step=step), log)
    if config.log.wandb:
        trackers.add("log.wandb", lambda: WandbMirror(run, config=config), log)
    try:
        yield trackers
    finally:
        trackers.close()


def numbers_of(values: Mapping[str, Value]) -> dict[str, float]:
    """Return the numbers of a log line; those of an event are named ``event/name``."""
    event = values.get("event")
    prefix = "" if event is None else f"{event}/"
    return {prefix + name: x for name, x in values.items() if isinstance(x, int | float)}
