"""Where a run begins: a new folder or the newest state of one, held by one trainer at a time."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch

from rankscope.durable import (
    is_temporary,
    make_folder,
    read_file,
    sweep,
    write_file,
)
from rankscope.errors import RankscopeError, WrongSettingError, printable, require_folder
from rankscope.folder_lock import lock_files
from rankscope.run_files import step_name
from rankscope.training.config import Config
from rankscope.training.config_file import config_digest, differences, load_config, to_toml
from rankscope.training.data.corpus import Corpus
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.state import Position, newest_state, read_position
from rankscope.training.schedule import timeline

LOCK = "run"  # kind of the lock that a trainer holds
# If one of these changes, the same steps give results that agree, but not to the last bit.
DECIDES_THE_LAST_BIT = ("torch", "threads", "processes", "cpu_capability", "device", "machine")


@dataclass(frozen=True)
class Start:
    """Where a training begins: at a state on disk, or at step 0."""

    position: Position = field(default_factory=Position)
    state: Path | None = None
    warnings: list[str] = field(default_factory=list)


def find_start(config: Config, *, resume: bool) -> Start:
    """Decide where in ``config.out`` the training begins; nothing is written.

    Raises
    ------
    WrongSettingError
        If the folder holds something else, a run of another configuration, an unfinished run
        while ``resume`` is False, or checkpoints without a state.
    RankscopeError
        If all states of the run are damaged.
    """
    run = Path(config.out)
    if not (run / "config.toml").exists():
        _refuse_foreign(run)
        return Start()
    state, warnings = newest_state(run)
    if state is None:
        _refuse_to_overwrite(run)
        return Start()
    if not (run / "config.toml").is_file():
        raise RankscopeError("is not a regular file", path=run / "config.toml")
    if changed := differences(load_config(run / "config.toml"), config):
        raise WrongSettingError(
            f"holds a run of another configuration: {'; '.join(changed)}. "
            "Undo the change or choose another `out`",
            path=run,
        )
    position = read_position(state)
    if position.step < config.schedule.steps and not resume:
        raise WrongSettingError(
            f"holds an unfinished run, at step {position.step} of {config.schedule.steps}: "
            "continue it with `resume` or choose another `out`",
            path=run,
        )
    return Start(position, state, warnings)


def prepare(config: Config, start: Start, corpus: Corpus, *, processes: int) -> list[str]:
    """Bring a locked run folder to the state of ``start``.

    Parameters
    ----------
    config
        Stored as ``config.toml``.
    start
        What `find_start` returned. What was logged after it is dropped.
    corpus
        The tokens; their hash is recorded, and compared with the one from the beginning.
    processes
        How many train together.

    Returns
    -------
    Warnings about what has changed since the run began.

    Raises
    ------
    WrongSettingError
        If the run began with other data.
    """
    run = Path(config.out)
    for folder in (run, run / "checkpoints", run / "merges", run / "state"):
        sweep(folder, alone=True)
    now = environment(config, corpus, processes=processes)
    warnings = [] if start.state is None else _compare_environments(run, now)
    # The first of all files: by it the folder is recognised as a run.
    write_file(run / "config.toml", to_toml(config).encode())
    write_file(run / "environment.json", (json.dumps(now, indent=2) + "\n").encode())
    merges = any(boundary.merges for boundary in timeline(config).boundaries)
    for name in ("checkpoints", "state") + (("merges",) if merges else ()):
        make_folder(run / name)
    if corpus.tokenizer is not None:
        write_file(run / "tokenizer.json", corpus.tokenizer.encode())
    MetricsLog(run).rewind(start.position.step if start.state else -1)
    return warnings


def _version() -> str | None:
    """The installed version; None where the package runs from a folder of its source."""
    try:
        return importlib.metadata.version("rankscope")
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(config: Config, corpus: Corpus, *, processes: int) -> dict[str, object]:
    """What a run is trained with, for ``environment.json``: versions, threads and hashes."""
    return {
        "rankscope": _version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name() if config.device == "cuda" else "cpu",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "config_blake2b": config_digest(config),
        "data_blake2b": corpus.digest(),
        "training_tokens": len(corpus.training),
        "validation_tokens": len(corpus.validation),
        "vocab_size": corpus.vocab_size,
    }


def _refuse_foreign(run: Path) -> None:
    require_folder(run)
    if not run.is_dir():
        return
    foreign = [
        p.name for p in run.iterdir() if p.name not in lock_files(LOCK) and not is_temporary(p.name)
    ]
    if foreign:
        raise WrongSettingError(
            f"is not a run folder, and holds {min(foreign)!r}: choose an empty folder as `out`",
            path=run,
        )


def _refuse_to_overwrite(run: Path) -> None:
    """Keep the checkpoints of a finished run whose states have been removed."""
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    if checkpoints and checkpoints[-1].name != step_name(0):
        raise WrongSettingError(
            f"holds checkpoints up to {checkpoints[-1].name}, but no state to resume from: "
            "choose another `out`",
            path=run,
        )


def _compare_environments(run: Path, now: dict[str, object]) -> list[str]:
    before = _environment_before(run / "environment.json")
    if before is None:
        return [f"{run / 'environment.json'} cannot be read, so the data cannot be compared"]
    if before["data_blake2b"] != now["data_blake2b"]:
        raise WrongSettingError(
            "this run began with other data: restore them, or start a new run", path=run
        )
    return [
        f"{key} was {printable(repr(before.get(key)), limit=80)} and is now {now[key]!r}: "
        "the run continues, but its last bits may differ"
        for key in DECIDES_THE_LAST_BIT
        if before.get(key) != now[key]
    ]


def _environment_before(path: Path) -> dict[str, object] | None:
    """What an earlier start recorded; None if that is damaged."""
    try:
        before = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError):
        return None
    is_sound = isinstance(before, dict) and isinstance(before.get("data_blake2b"), str)
    return before if is_sound else None
