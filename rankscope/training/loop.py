"""The training loop, from top to bottom.

A run is a function of its configuration and its data. The step, an integer, is its only clock:
learning rate, batch, restarts, measurements and checkpoints all follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.training.checkpoint import write_checkpoint, write_merge
from rankscope.training.config import Config
from rankscope.training.data import (
    Corpus,
    iter_validation,
    load_corpus,
    probe_batch,
    training_batch,
)
from rankscope.training.gradients import effective_gradients, mean_loss
from rankscope.training.lock import locked
from rankscope.training.metrics_log import MetricsLog
from rankscope.training.model import LanguageModel
from rankscope.training.progress import Clock, TrainingProgress
from rankscope.training.relora import restart, wrap
from rankscope.training.run_folder import Start, find_start, prepare
from rankscope.training.saving import make_folder
from rankscope.training.schedule import is_restart, learning_rate, restarts_before
from rankscope.training.signals import StopRequest
from rankscope.training.state import Position, load_state, write_state
from rankscope.training.summary import summary

NON_FINITE, UNWRITABLE = 6, 5  # exit codes


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    step: int
    exit_code: int  # 0 complete or out of time, 5 not writable, 6 loss not finite, 130/143 signal
    message: str  # one line


class NonFiniteLossError(Exception):
    """A loss or gradient that must not reach the optimizer."""


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
    How it ended. Progress goes to standard error.

    Raises
    ------
    RankscopeError
        If the configuration, the data or the folder do not allow to train.
    OSError
        If the folder cannot be written before the first step; later on it is an outcome.
    """
    start = find_start(config, resume=resume)
    if start.position.step == config.schedule.steps:
        message = f"{config.out} is complete, {config.schedule.steps} steps; nothing to do"
        return Outcome(config.schedule.steps, 0, message)
    corpus = load_corpus(config.data, config.batch)
    model = build_model(config, corpus.vocab_size)
    stop = StopRequest(max_minutes=max_minutes)
    make_folder(Path(config.out))
    with (
        locked(Path(config.out)),
        stop.listening(),
        TrainingProgress(start=start.position.step, steps=config.schedule.steps) as progress,
    ):
        start = find_start(config, resume=resume)  # again, now that nobody else can write
        for line in summary(config, corpus, model):
            progress.say(line)
        for warning in start.warnings + prepare(config, start, corpus):
            progress.say(f"warning: {warning}")
        return Trainer(config, corpus, model, progress, start).train(stop)


def build_model(config: Config, vocab_size: int) -> LanguageModel:
    """Return the initial model of a run; its function does not depend on the method."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise RankscopeError("device = 'cuda', but torch finds no GPU: set device = 'cpu'")
    model = LanguageModel(config.model, vocab_size)
    model.initialise(config.seed, std=config.model.initializer_range)
    if config.method != "full":
        wrap(model, config.adapter, seed=config.seed)
    return model.to(config.device)


def require_finite(step: int, **measured: float) -> None:
    """Raise `NonFiniteLossError` if one of the numbers is NaN or infinite."""
    for name, value in measured.items():
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"stopped at step {step}: the {name.replace('_', ' ')} is {value}. What is saved "
                "is from before; try a lower schedule.learning_rate"
            )


class Trainer:
    """What the steps of one run share."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        model: LanguageModel,
        progress: TrainingProgress,
        start: Start,
    ) -> None:
        self.config, self.corpus, self.model, self.progress = config, corpus, model, progress
        self.run = Path(config.out)
        self.log = MetricsLog(self.run)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            betas=(config.optimizer.beta1, config.optimizer.beta2),
            eps=config.optimizer.eps,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.start = start
        self.clock = Clock(seconds=start.position.seconds, step=start.position.step)

    def train(self, stop: StopRequest) -> Outcome:
        """Take the steps that remain.

        Work at step t comes in this order: validate, save, restart, update. What is saved is the
        state before a restart, so a resumed run begins with the restart of its step, if any.
        """
        step, stopping, loss = self.start.position.step, False, math.nan
        try:
            if self.start.state is None:
                self.validate_and_save(0, stopping=False)
            else:
                load_state(self.start.state, self.model, self.optimizer)
            while step < self.config.schedule.steps and not stopping:
                if is_restart(step, self.config.schedule):
                    self.restart(step)
                self.update(step)
                step += 1
                # Asked once: a signal between two answers would end the run without a save.
                stopping = stop.is_due()
                loss = self.validate_and_save(step, stopping=stopping)
        except NonFiniteLossError as error:
            self.log.write(step, event="non-finite", reason=str(error))
            return Outcome(step, NON_FINITE, str(error))
        except OSError as error:
            message = f"stopped at step {step}: {error}; put that right and go on with --resume"
            return Outcome(step, UNWRITABLE, message)
        return self.outcome(step, loss, stop)

    def update(self, step: int) -> None:
        """Learn from the batch of this step.

        Raises
        ------
        NonFiniteLossError
            If the loss or a gradient is NaN or infinite; the parameters are as they were.
        """
        config = self.config
        rate = learning_rate(step, config.schedule)
        batch = training_batch(self.corpus, config.batch, seed=config.seed, step=step)
        parts = torch.split(batch.to(config.device), config.batch.sequences_at_once)
        loss = 0.0
        for part in parts:
            with torch.autocast(
                config.device, torch.bfloat16, enabled=config.precision == "bfloat16"
            ):
                part_loss = self.model.loss(part) / len(parts)
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.item()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, config.optimizer.clip).item()
        require_finite(step, loss=loss, gradient_norm=norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.report(step, loss, norm, rate)

    def report(self, step: int, loss: float, norm: float, rate: float) -> None:
        """Show the update of this step, and now and then log it."""
        self.progress.update(step + 1, loss=loss)
        if step % self.config.log.log_every == 0:
            speed = self.clock.steps_per_second(step + 1) * self.config.batch.tokens
            self.progress.tokens_per_second = speed
            self.log.write(
                step,
                loss=loss,
                learning_rate=rate,
                grad_norm=norm,
                tokens=step * self.config.batch.tokens,
                tokens_per_second=round(speed, 1),
                time=round(self.clock.seconds(), 3),
            )

    def restart(self, step: int) -> None:
        """Record the adapters, merge them and begin new ones; the function must not change."""
        restarts = restarts_before(step, self.config.schedule) + 1
        before = mean_loss(self.model, self.probe())
        write_merge(self.run, self.model, step=step, restarts=restarts)
        restart(self.model, self.optimizer, restarts=restarts, seed=self.config.seed)
        after = mean_loss(self.model, self.probe())
        self.log.write(
            step, event="restart", restart=restarts, loss_before=before, loss_after=after
        )

    def validate_and_save(self, step: int, *, stopping: bool) -> float:
        """Do what is due at this step before its update; return the validation loss or NaN."""
        last, log = step == self.config.schedule.steps, self.config.log
        loss = math.nan
        if last or step % log.eval_every == 0:
            loss = mean_loss(self.model, self.validation())
            self.log.write(step, validation_loss=loss)
        saving = last or step % log.save_every == 0
        if saving or stopping:
            require_finite(step, loss=mean_loss(self.model, self.probe()))
        if saving:
            gradients = effective_gradients(self.model, self.probe())
            write_checkpoint(
                self.run,
                self.model,
                config=self.config,
                corpus=self.corpus,
                step=step,
                gradients=gradients,
                validation_loss=loss,
            )
        if saving or stopping:
            write_state(self.run, self.model, self.optimizer, Position(step, self.clock.seconds()))
        return loss

    def probe(self) -> Iterator[Tensor]:
        """Sequences of the probe, as many at once as in training."""
        config = self.config
        batch = probe_batch(self.corpus, config.batch, config.log.probe_sequences, seed=config.seed)
        yield from torch.split(batch.to(config.device), config.batch.sequences_at_once)

    def validation(self) -> Iterator[Tensor]:
        """Sequences of the held-out text."""
        tokens = self.config.log.validation_tokens
        for batch in iter_validation(self.corpus, self.config.batch, tokens):
            yield batch.to(self.config.device)

    def outcome(self, step: int, loss: float, stop: StopRequest) -> Outcome:
        """Say how the run ended."""
        steps = self.config.schedule.steps
        if step == steps:
            message = f"{self.run}: {steps} steps, validation loss {loss:.4f} nats a token"
            return Outcome(step, 0, message)
        code = 0 if stop.signal is None else 128 + stop.signal
        reason = "out of time" if stop.signal is None else "interrupted"
        message = f"{self.run}: {reason}, saved at step {step} of {steps}; go on with --resume"
        return Outcome(step, code, message)
