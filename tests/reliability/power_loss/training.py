"""A training that loses its power: what it resumes from, and what it ends with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rankscope.checkpoints.discovery import open_run
from rankscope.durable import damage, is_temporary, make_folder, read_manifest
from rankscope.errors import RankscopeError
from rankscope.run_files import step_name
from rankscope.training.config import Config
from rankscope.training.config_file import config_from
from rankscope.training.data.corpus import Corpus, load_corpus
from rankscope.training.progress import Clock
from rankscope.training.run_folder import recording as recorder
from rankscope.training.run_folder.start import Start, find_start, prepare
from rankscope.training.schedule import timeline
from rankscope.training.train import train
from tests.reliability.power_loss.disk import Counts, Tree
from tests.reliability.power_loss.promises import (
    Content,
    CrashState,
    Promise,
    content_at,
    content_in,
    crash_states,
    marked,
)
from tests.reliability.power_loss.recording import Recording, put, recording, tree_of
from tests.reliability.power_loss.sample import Sample

SHORT: dict[str, Any] = {
    "model.hidden_size": 8,
    "model.intermediate_size": 12,
    "model.num_hidden_layers": 1,
    "model.num_attention_heads": 2,
    "adapter.rank": 2,
    "relora.probe_sequences": 2,
    "schedule.steps": 6,
    "schedule.warmup_steps": 1,
    "schedule.restart_every": 3,
    "schedule.restart_warmup_steps": 1,
    "batch.sequences": 2,
    "batch.sequence_length": 8,
    "log.log_every": 1,
    "log.eval_every": 2,
    "log.save_every": 2,
    "log.keep_last": 2,
    "log.validation_tokens": 16,
    "log.probe_sequences": 2,
}


LOG = "run/metrics.jsonl"


@dataclass(frozen=True)
class Saving:
    """A state is about to be written, and this is the log."""

    step: int
    log: bytes


@dataclass
class Training:
    """A run with restarts, dropped checkpoints and an interruption, recorded.

    Attributes
    ----------
    whole
        What an uninterrupted run leaves.
    """

    config: Config
    recording: Recording
    whole: Tree

    @property
    def run(self) -> Path:
        return Path(self.config.out)


def recorded_training(folder: Path, *, is_compared: bool = True) -> Training:
    """Train, interrupted once, and record it; before, train without interruption to compare.

    The clock stands still.
    """
    config = _config(folder)
    whole: Tree = {}
    with standing_clock():
        if is_compared:
            train(config)
            whole = tree_of(folder / "run")
            shutil.rmtree(folder / "run")
        with recording(folder) as found, marked(found), _saving(found):
            train(config, max_minutes=0.0)
            train(config, resume=True)
    return Training(config, found, whole)


def plain_training(folder: Path) -> Path:
    """The same run without a recording; returns its folder."""
    config = _config(folder)
    train(config)
    return Path(config.out)


def _config(folder: Path) -> Config:
    folder.mkdir(exist_ok=True)
    text = folder / "text.txt"
    text.write_text("a quick brown fox jumps over a lazy dog " * 20)
    settings = {"method": "relora", "out": str(folder / "run"), "data.source": str(text)}
    return config_from({**settings, **SHORT})


@contextmanager
def standing_clock() -> Iterator[None]:
    """Take the time out of logs and states."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "seconds", lambda self: 0.0)
        patch.setattr(Clock, "steps_per_second", lambda self, step: 1.0)
        yield


@contextmanager
def _saving(found: Recording) -> Iterator[None]:
    real = recorder.write_state

    def write_state(run: Path, model: Any, optimizer: Any, position: Any, **settings: Any) -> None:
        found.mark(Saving(position.step, (run / "metrics.jsonl").read_bytes()))
        real(run, model, optimizer, position, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "write_state", write_state)
        yield


def violations(training: Training, sample: Sample, counts: Counts | None = None) -> Iterator[str]:
    """Say what is wrong after a loss of power at any time."""
    corpus = load_corpus(training.config.data, training.config.batch)
    for number, state in sample.chosen(training.recording, counts):
        found = list(_read(training, state))
        found += [f"{LOG} is lost"] if LOG in state.broken(state.tree) else []
        if sample.lost_again and number % sample.lost_again == 0:
            found += _lost_again(training, state, corpus, sample)
        else:
            found += _resumed(training, state, corpus)
        if sample.resumed and number % sample.resumed == 0:
            found += _continued(training, state)
        at = training.recording.operations[state.position - 1] if state.position else None
        yield from (f"after {state.position} operations, the last {at}: {one}" for one in found)


def _step(path: str) -> int:
    return int(Path(path).name.removeprefix("step-").partition(".")[0])


def _put(training: Training, state: CrashState) -> None:
    shutil.rmtree(training.run.parent, ignore_errors=True)
    put(state.tree, training.run.parent)


def _read(training: Training, state: CrashState) -> Iterator[str]:
    """What `open_run` takes for a checkpoint is one."""
    _put(training, state)
    try:
        opened = open_run(training.run)
    except RankscopeError:
        return  # there is none; whether there should be is asked elsewhere
    for one in opened:
        path = one.path.relative_to(training.run.parent).as_posix()
        if content_at(one.path) not in state.known.get(path, ()):
            yield f"{path} is read, and is not what was written"


def _resumed(training: Training, state: CrashState, corpus: Corpus) -> Iterator[str]:
    """What a resumed training begins with is whole, and nothing that was done is lost."""
    run = training.run
    _put(training, state)
    try:
        start, warnings = _started(training, corpus)
    except RankscopeError as error:
        yield f"it cannot be resumed: {error}"
        return
    yield from warnings
    tree = tree_of(run.parent)
    # Of the log, a start drops what was flushed after the state that it begins with.
    yield from (f"{path} is lost" for path in state.broken(tree) if path != LOG)
    step = start.position.step if start.state else -1
    if start.state is not None:
        path = f"run/state/{start.state.name}"
        if content_at(start.state) not in state.known.get(path, ()):
            yield f"{path} is resumed from, and is not what was written"
        log = next(said.log for said in reversed(state.said) if said.step == step)
        if (run / "metrics.jsonl").read_bytes() != log:
            yield f"the log is not the one of step {step}"
    if step < max((_step(p) for p in state.kept if p.startswith("run/state/")), default=-1):
        yield f"it begins at step {step}, although a later one was saved"
    promised = {mark.path for _, mark in training.recording.marks if isinstance(mark, Promise)}
    for path in promised | set(_merges(training.config)):
        is_there = True
        if path.startswith("run/checkpoints/") and _step(path) <= step:
            is_there = content_in(tree, path) in _whole(state, path)
        elif path.startswith("run/merges/step-") and _step(path) < step:
            is_there = _is_listed(run.parent / path)
        if not is_there:
            yield f"{path} is missing at step {step}"


def _merges(config: Config) -> Iterator[str]:
    """The merges that the schedule has, however they are written."""
    for boundary in timeline(config).boundaries:
        if boundary.merges:
            yield f"run/merges/{step_name(boundary.step)}.safetensors"


def _started(training: Training, corpus: Corpus) -> tuple[Start, list[str]]:
    """Do what a training does before its first step."""
    start = find_start(training.config, resume=True)
    make_folder(training.run)
    warnings = prepare(training.config, start, corpus, processes=1)
    return start, [*start.warnings, *warnings]


def _lost_again(
    training: Training, state: CrashState, corpus: Corpus, sample: Sample
) -> Iterator[str]:
    """The same holds if the power is lost again before the first step."""
    _put(training, state)
    with recording(training.run.parent) as found:
        _started(training, corpus)
    for tree in {
        hash(frozenset(again.tree.items())): again.tree
        for again in crash_states(found, sample.size, seed=sample.seed)
    }.values():
        yield from (
            f"lost again: {one}" for one in _resumed(training, replace(state, tree=tree), corpus)
        )


def _continued(training: Training, state: CrashState) -> Iterator[str]:
    """Resumed, the training ends as if it had never been interrupted."""
    _put(training, state)
    with standing_clock():
        train(training.config, resume=True)
    last = f"state/step-{training.config.schedule.steps:08d}"
    ended = tree_of(training.run)
    for path in sorted({*training.whole, *ended}):
        # Which older states there are depends on where it was interrupted.
        is_older = path.startswith("state/") and not path.startswith(last)
        is_compared = path not in ("run.lock", "run.pid") and not any(
            map(is_temporary, Path(path).parts)
        )
        if is_compared and not is_older and training.whole.get(path, b"") != ended.get(path, b""):
            yield f"resumed to the end, {path} differs"


def _whole(state: CrashState, path: str) -> set[Content]:
    """What may be there; nothing, only if it was there once: then it may have been dropped."""
    contents = set(state.known.get(path, ()))
    return contents if path in state.kept else contents - {None}


def _is_listed(path: Path) -> bool:
    return damage(path.parent) is None and path.name in dict(read_manifest(path.parent)["files"])
