"""A run from its configuration: folder, data, model, and then the loop."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from rankscope.durable import make_folder
from rankscope.errors import RankscopeError
from rankscope.training.announcement import summary
from rankscope.training.config import Config
from rankscope.training.data.corpus import Corpus, load_corpus
from rankscope.training.loop import Outcome, Trainer
from rankscope.training.minimal_pairs_probe import open_minimal_pairs
from rankscope.training.model import LanguageModel
from rankscope.training.processes import Processes, check_shares, joined
from rankscope.training.progress import TrainingProgress
from rankscope.training.run_folder.lock import locked
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.recording import Recorder
from rankscope.training.run_folder.start import Start, find_start, prepare
from rankscope.training.run_folder.tracking import open_trackers, require_trackers
from rankscope.training.signals import StopRequest


def train(config: Config, *, resume: bool = False, max_minutes: float | None = None) -> Outcome:
    """Train a model into ``config.out``.

    Parameters
    ----------
    config
        The run.
    resume
        Go on with an unfinished run. Without one, start from the beginning.
    max_minutes
        Save and end after so much time; ``resume`` goes on from there.

    Returns
    -------
    How it ended. Progress goes to standard error. Of several processes, the first one speaks: the
    message of the others is empty.

    Raises
    ------
    RankscopeError
        If the configuration, the data or the folder do not allow to train.
    OSError
        If the folder cannot be written before the first step; later on it is an outcome.
    """
    require_trackers(config.log)
    with joined(config.device) as processes:
        check_shares(config.batch.sequences, config.batch.micro_sequences, processes.size)
        start = processes.result_of_first(lambda: find_start(config, resume=resume))
        if start.position.step == config.schedule.steps:
            message = f"{config.out} is complete, {config.schedule.steps} steps; nothing to do"
            return Outcome(config.schedule.steps, 0, message)
        corpus = load_corpus(config.data, config.batch)
        pairs = open_minimal_pairs(config, corpus)
        about = summary(config, corpus)  # also makes sure that the ranks are possible
        about += [] if pairs is None else [pairs.description]
        model = build_model(config, corpus.vocab_size).to(processes.device)
        stop = StopRequest(max_minutes=max_minutes)
        processes.result_of_first(lambda: make_folder(Path(config.out)))
        progress = TrainingProgress(
            start=start.position.step, steps=config.schedule.steps, quiet=not processes.is_first
        )
        # What is opened last closes first: a second signal ends a mirror that does not.
        with ExitStack() as stack:
            processes.result_of_first(lambda: stack.enter_context(locked(Path(config.out))))
            stack.enter_context(stop.listening())
            stack.enter_context(progress)
            start = _begin(config, corpus, about, progress, processes, resume=resume)
            recorder = _recorder(config, corpus, start, progress, processes, stack)
            trainer = Trainer(
                config,
                corpus,
                model,
                start=start,
                recorder=recorder,
                processes=processes,
                pairs=pairs,
            )
            outcome = trainer.train(stop)
            return outcome if processes.is_first else replace(outcome, message="")


def _begin(
    config: Config,
    corpus: Corpus,
    about: list[str],
    progress: TrainingProgress,
    processes: Processes,
    *,
    resume: bool,
) -> Start:
    """Prepare the run's folder, now that nobody else can write, and say what is about to happen."""

    def begin() -> tuple[Start, list[str]]:
        start = find_start(config, resume=resume)
        return start, start.warnings + prepare(config, start, corpus, processes=processes.size)

    start, warnings = processes.result_of_first(begin)
    for line in [*about, *(f"warning: {warning}" for warning in warnings)]:
        progress.say(line)
    return start


def _recorder(
    config: Config,
    corpus: Corpus,
    start: Start,
    progress: TrainingProgress,
    processes: Processes,
    stack: ExitStack,
) -> Recorder:
    """Open the log and its mirrors, in one process."""

    def warn(warning: str) -> None:
        progress.say(f"warning: {warning}")

    log = MetricsLog(Path(config.out))
    if processes.is_first:
        mirrors = open_trackers(config, step=start.position.step, warn=warn)
        log = MetricsLog(Path(config.out), stack.enter_context(mirrors).write)
    return Recorder(config, corpus, log, progress, writes=processes.is_first)


def build_model(config: Config, vocab_size: int) -> LanguageModel:
    """Return the initial model of a run, which does not depend on the method.

    Parameters
    ----------
    config
        The run.
    vocab_size
        Of the data; the model's own may be larger.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise RankscopeError("device = 'cuda', but torch finds no GPU: set device = 'cpu'")
    rows = config.model.vocab_size or vocab_size
    if rows < vocab_size:
        raise RankscopeError(
            f"model.vocab_size = {rows} is less than the {vocab_size} of the data: leave it out"
        )
    model = LanguageModel(config.model, rows)
    model.initialise(config.seed)
    return model
