"""Whether a folder is a place to start a run in, or to go on with one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.durable import is_temporary, make_folder, sweep, write_file
from rankscope.errors import RankscopeError
from rankscope.training.config import Config
from rankscope.training.config_file import differences, load_config, to_toml
from rankscope.training.data.corpus import Corpus
from rankscope.training.run_folder.checkpoint import step_name
from rankscope.training.run_folder.environment import DECIDES_THE_LAST_BIT, environment
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.state import Position, newest_state, read_position
from rankscope.training.schedule import timeline


@dataclass(frozen=True)
class Start:
    """Where a training begins: a state on disk, or nothing yet."""

    position: Position = field(default_factory=Position)
    state: Path | None = None
    warnings: list[str] = field(default_factory=list)


def find_start(config: Config, *, resume: bool) -> Start:
    """Decide where in ``config.out`` the training begins; nothing is written.

    Raises
    ------
    RankscopeError
        If the folder holds something else, a run of another configuration, an unfinished run
        while ``resume`` is False, or a run whose states are all damaged or gone.
    """
    run = Path(config.out)
    if not (run / "config.toml").exists():
        _refuse_foreign(run)
        return Start()
    state, warnings = newest_state(run)
    if state is None:
        _refuse_to_overwrite(run)
        return Start()
    if changed := differences(load_config(run / "config.toml"), config):
        raise RankscopeError(
            f"holds a run of another configuration: {'; '.join(changed)}. "
            "Undo the change or choose another folder with --out",
            path=run,
        )
    position = read_position(state)
    if position.step < config.schedule.steps and not resume:
        raise RankscopeError(
            f"holds an unfinished run, at step {position.step} of {config.schedule.steps}: "
            "go on with --resume or choose another folder with --out",
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
        The tokens; their hash is recorded, and compared with that of the beginning.
    processes
        How many train together.

    Returns
    -------
    Warnings: what is not as it was when the run began.

    Raises
    ------
    RankscopeError
        If the run began with other data.
    """
    run = Path(config.out)
    for folder in (run, run / "checkpoints", run / "merges", run / "state"):
        sweep(folder)
    found = environment(config, corpus, processes=processes)
    warnings = [] if start.state is None else _compare_environments(run, found)
    # First of all files: without it the folder would not be known for a run.
    write_file(run / "config.toml", to_toml(config).encode())
    write_file(run / "environment.json", (json.dumps(found, indent=2) + "\n").encode())
    merges = any(boundary.merges for boundary in timeline(config).boundaries)
    for name in ("checkpoints", "state") + (("merges",) if merges else ()):
        make_folder(run / name)
    if corpus.tokenizer is not None:
        write_file(run / "tokenizer.json", corpus.tokenizer.encode())
    MetricsLog(run).rewind(start.position.step if start.state else -1)
    return warnings


def _refuse_foreign(run: Path) -> None:
    if not run.exists():
        return
    if not run.is_dir():
        raise RankscopeError("is a file, not a run folder: choose another --out", path=run)
    foreign = [p.name for p in run.iterdir() if p.name != "run.lock" and not is_temporary(p.name)]
    if foreign:
        raise RankscopeError(
            f"is not a run folder, but holds {min(foreign)!r}: choose an empty one with --out",
            path=run,
        )


def _refuse_to_overwrite(run: Path) -> None:
    """Somebody may have removed the states of a finished run; its checkpoints are still one."""
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    if checkpoints and checkpoints[-1].name != step_name(0):
        raise RankscopeError(
            f"holds checkpoints up to {checkpoints[-1].name}, but no state to go on from: "
            "choose another folder with --out",
            path=run,
        )


def _compare_environments(run: Path, found: dict[str, object]) -> list[str]:
    path = run / "environment.json"
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return [f"{path} cannot be read, so the data cannot be compared"]
    if before.get("data_blake2b") != found["data_blake2b"]:
        raise RankscopeError(
            "the data are not those that the run began with: bring them back or start a new run",
            path=run,
        )
    return [
        f"{key} was {before.get(key)!r} and is now {found[key]!r}: "
        "the run goes on, but not to the last bit as it would have"
        for key in DECIDES_THE_LAST_BIT
        if before.get(key) != found[key]
    ]
