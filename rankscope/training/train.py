"""A run from its configuration: folder, data, model, and then the loop."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rankscope.durable import make_folder
from rankscope.folder_lock import locked
from rankscope.training.announcement import summary
from rankscope.training.config import Config
from rankscope.training.data.corpus import Corpus, load_corpus
from rankscope.training.ending import StopRequest, TrainingOutcome
from rankscope.training.initial_model import initial_model
from rankscope.training.launch import check_shares, joined
from rankscope.training.loop import Trainer
from rankscope.training.minimal_pairs_probe import open_minimal_pairs
from rankscope.training.processes import Processes
from rankscope.training.progress import TrainingProgress
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.recording import Recorder
from rankscope.training.run_folder.start import LOCK, Start, find_start, prepare
from rankscope.training.run_folder.tracking import open_trackers, require_trackers


def train(
    config: Config, *, resume: bool = False, max_minutes: float | None = None
) -> TrainingOutcome:
    """Train a model into ``config.out``.

    Parameters
    ----------
    config
        The run.
    resume
        Continue an unfinished run. If there is none, start from the beginning.
    max_minutes
        Save and end after this many minutes; ``resume`` continues from there.

    Returns
    -------
    How it ended. Progress goes to standard error. Of several processes only the first one speaks:
    the message of the others is empty.

    Raises
    ------
    WrongSettingError
        If configuration, data and folder do not fit each other or the machine.
    RankscopeError
        If the data or the saved states are damaged.
    OSError
        If the folder cannot be written before the first step; later that is an outcome.
    """
    require_trackers(config.log)
    with joined(config.device) as processes:
        check_shares(config.batch.sequences, config.batch.micro_sequences, processes.size)
        start = processes.result_of_first(lambda: find_start(config, resume=resume))
        if start.position.step == config.schedule.steps:
            message = f"{config.out} is complete, {config.schedule.steps} steps; nothing to do"
            return TrainingOutcome(config.schedule.steps, "complete", message)
        corpus = load_corpus(config.data, config.batch)
        pairs = open_minimal_pairs(config, corpus)
        about = summary(config, corpus)  # also checks that the ranks are possible
        about += [] if pairs is None else [pairs.description]
        model = initial_model(config, corpus.vocab_size, resuming=start.state is not None).to(
            processes.device
        )
        stop = StopRequest(max_minutes=max_minutes)
        processes.result_of_first(lambda: make_folder(Path(config.out)))
        progress = TrainingProgress(
            start=start.position.step, steps=config.schedule.steps, quiet=not processes.is_first
        )
        run = _Run(config, corpus, processes, progress)
        # What is opened last closes first: a second signal ends a mirror that does not close.
        with ExitStack() as stack:
            lock = locked(Path(config.out), kind=LOCK, who="trainer")
            processes.result_of_first(lambda: stack.enter_context(lock))
            stack.enter_context(stop.listening())
            stack.enter_context(progress)
            start = run.begin(about, resume=resume)
            trainer = Trainer(
                config,
                corpus,
                model,
                start=start,
                recorder=run.recorder(start, stack),
                processes=processes,
                pairs=pairs,
            )
            outcome = trainer.train(stop)
            return outcome if processes.is_first else replace(outcome, message="")


@dataclass(frozen=True)
class _Run:
    """What is needed to begin a run and to record it."""

    config: Config
    corpus: Corpus
    processes: Processes
    progress: TrainingProgress

    def begin(self, about: list[str], *, resume: bool) -> Start:
        """Prepare the folder, now that nobody else can write to it, and say what will happen."""

        def begin() -> tuple[Start, list[str]]:
            start = find_start(self.config, resume=resume)
            size = self.processes.size
            return start, start.warnings + prepare(self.config, start, self.corpus, processes=size)

        start, warnings = self.processes.result_of_first(begin)
        for line in [*about, *(f"warning: {warning}" for warning in warnings)]:
            self.progress.say(line)
        return start

    def recorder(self, start: Start, stack: ExitStack) -> Recorder:
        """Open the log and, in the first process, its mirrors."""

        def warn(warning: str) -> None:
            self.progress.say(f"warning: {warning}")

        log = MetricsLog(Path(self.config.out))
        if self.processes.is_first:
            mirrors = open_trackers(self.config, step=start.position.step, warn=warn)
            log = MetricsLog(Path(self.config.out), stack.enter_context(mirrors).write)
        return Recorder(
            self.config, self.corpus, log, self.progress, writes=self.processes.is_first
        )
