"""The training loop, from top to bottom.

A run is a function of its configuration and its data. The step, an integer, is its only clock:
learning rate, batch, restarts, measurements and checkpoints all follow from it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import renew, trained_parameters, unwrap
from rankscope.training.adapters.published import keyed_dropout
from rankscope.training.config import Config
from rankscope.training.data.batches import training_batch
from rankscope.training.data.corpus import Corpus
from rankscope.training.ending import Ending, StopRequest, TrainingOutcome
from rankscope.training.minimal_pairs_probe import MinimalPairsProbe
from rankscope.training.model import LanguageModel
from rankscope.training.precision import forward_precision
from rankscope.training.probe import Probe
from rankscope.training.processes import Processes
from rankscope.training.progress import Clock
from rankscope.training.run_folder.recording import Recorder
from rankscope.training.run_folder.saves import is_saved
from rankscope.training.run_folder.start import Start
from rankscope.training.run_folder.state import Position, load_state
from rankscope.training.schedule import Boundary, timeline
from rankscope.training.settling import Settling

ADVICE = "The saved state is from before; try a lower schedule.learning_rate"


class NonFiniteLossError(Exception):
    """Too many losses or gradients in a row are NaN or infinite, or the weights themselves are."""


class Trainer:
    """The state that the steps of one run share."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        model: LanguageModel,
        *,
        start: Start,
        recorder: Recorder,
        processes: Processes,
        pairs: MinimalPairsProbe | None = None,
    ) -> None:
        self.config, self.corpus, self.model = config, corpus, model
        self.start, self.recorder, self.processes = start, recorder, processes
        self.clock = Clock(seconds=start.position.seconds, step=start.position.step)
        self.probe, self.pairs = Probe(config, corpus, model), pairs
        self.first_phase_end = start.position.first_phase_end
        self.timeline = timeline(config, first_phase_end=self.first_phase_end)
        self.cycles = Cycles(config)
        self.settling = Settling(config.phases, model, seen=start.position.seen)
        self.skipped = 0  # steps in a row
        self.optimizer = torch.optim.AdamW(
            trained_parameters(model),
            betas=(config.optimizer.beta1, config.optimizer.beta2),
            eps=config.optimizer.eps,
            weight_decay=config.optimizer.weight_decay,
            fused=True,
        )
        self.loss = torch.compile(model.loss) if config.compile else model.loss

    def train(self, stop: StopRequest) -> TrainingOutcome:
        """Take the steps that remain.

        The work at a step comes in this order: look at the ranks, validate, save, pass a boundary,
        update. What is saved is the state before a boundary, so a resumed run begins with the
        restart of its step, if there is one.
        """
        step, stopping, loss = self.start.position.step, False, math.nan
        try:
            if self.start.state is None:
                if self.timeline.phases[0].has_adapters:
                    self.begin_cycle(0, merged={})
                self.validate_and_save(0, stopping=False)
            else:
                load_state(self.start.state, self.model, self.optimizer, self.cycles)
            self.clock.steps_per_second(step)  # speed is that of the updates from here on
            while step < self.config.schedule.steps and not stopping:
                if boundary := self.timeline.boundary(step):
                    self.pass_boundary(boundary)
                self.update(step)
                step += 1
                # Asked once: a signal between two answers would end the run without a save.
                stopping = self.processes.any(stop.is_due())
                self.look_at_ranks(step)
                loss = self.validate_and_save(step, stopping=stopping)
        except NonFiniteLossError as error:
            self.recorder.log(step, {"event": "non-finite", "reason": str(error)})
            return TrainingOutcome(step, "non-finite", str(error))
        except OSError as error:
            message = f"stopped at step {step}: {error}; fix that and continue with `resume`"
            return TrainingOutcome(step, "unwritable", message)
        return self.outcome(step, loss, stop)

    def update(self, step: int) -> None:
        """Learn from the batch of this step, or skip it if its loss or gradient is not finite."""
        config = self.config
        batch = training_batch(
            self.corpus, config.batch, seed=config.seed, step=step, order=config.data.order
        )
        parts = self.processes.share(batch.to(config.device), config.batch.micro_sequences)
        loss = 0.0
        for index, part in enumerate(parts):
            key = config.seed, step, self.processes.rank, index
            with (
                forward_precision(config),
                keyed_dropout(self.model, config.relora.published, *key),
            ):
                part_loss = self.loss(part) / len(parts)
            part_loss.backward()  # type: ignore[no-untyped-call]
            loss += part_loss.item()
        loss = self.processes.mean(loss)
        trained = trained_parameters(self.model)
        self.processes.mean_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, config.optimizer.clip or math.inf).item()
        if math.isfinite(loss) and math.isfinite(norm):
            self.skipped = 0
            for group in self.optimizer.param_groups:
                group["lr"] = self.timeline.learning_rate(step)
            self.optimizer.step()
        else:
            self.skip(step, loss, norm)
        self.optimizer.zero_grad()
        self.report(step, loss, norm)

    def skip(self, step: int, loss: float, norm: float) -> None:
        """Skip an update; learning rate and restarts keep their steps.

        Raises
        ------
        NonFiniteLossError
            If that happens too often in a row; the parameters are as they were.
        """
        self.skipped += 1
        if self.skipped > self.config.optimizer.tolerated_skips:
            raise NonFiniteLossError(
                f"stopped at step {step}: the loss is {loss}, the gradient norm {norm}. {ADVICE}"
            )
        self.recorder.log(step, {"event": "skipped", "skipped": self.skipped})

    def pass_boundary(self, boundary: Boundary) -> None:
        """Record and merge the adapters that end here, and begin new ones; the function stays."""
        step, model = boundary.step, self.model
        restarts = self.timeline.merges_before(step) + boundary.merges
        before, shapes = self.finite_probe_loss(step), self.trained_shapes()
        if boundary.merges:
            self.recorder.merge(step, model, restarts=restarts)
        merged = self.cycles.end(model)
        if boundary.after.has_adapters:
            self.begin_cycle(step, merged=merged)
        else:
            self.cycles.starts = {}
            unwrap(model)
            renew(self.optimizer, model)
        if self.config.compile and shapes != self.trained_shapes():
            torch.compiler.reset()  # else torch gives up compiling after a few other shapes
        self.processes.require_equal(dict(model.state_dict()), f"the parameters of step {step}")
        values: dict[str, str | int | float] = {
            "event": boundary.event,
            "method": boundary.after.method,
            "restart": restarts,
            "loss_before": before,
            "loss_after": self.probe.loss(),
            "trained_parameters": sum(shape.numel() for shape in self.trained_shapes()),
        }
        self.recorder.log(step, values | self.cycles.summary(merged))

    def begin_cycle(self, step: int, *, merged: dict[str, Tensor]) -> None:
        """Give the model its next adapters, chosen by the gradient at this point."""
        cycle = self.timeline.cycles_before(step)
        self.cycles.begin(
            self.model,
            self.optimizer,
            self.probe.cycle_gradients(cycle),
            cycle=cycle,
            cycles=self.timeline.cycles_before(self.config.schedule.steps),
            merged=merged,
            agree=self.processes.agreed,
        )

    def look_at_ranks(self, step: int) -> None:
        """End the first phase here if it may end and the ranks of its updates have settled."""
        if self.settling.is_due(step) and step < self.timeline.phases[1].start:
            self.recorder.log(step, {"rank_change": self.settling.look(self.model)})
            if self.settling.has_settled(step):
                self.first_phase_end = step
                self.timeline = timeline(self.config, first_phase_end=step)

    def validate_and_save(self, step: int, *, stopping: bool) -> float:
        """Do what is due at this step before its boundary; return the validation loss or NaN."""
        last, loss = step == self.config.schedule.steps, math.nan
        if last or step % self.config.log.eval_every == 0:
            loss = self.probe.validation_loss()
            self.recorder.log(step, {"validation_loss": loss})
        if self.pairs is not None and (last or step % self.config.log.blimp_steps == 0):
            self.recorder.log(step, self.pairs.judged(self.model))
        saving = is_saved(step, self.config.log, self.timeline)
        if saving or stopping:
            self.finite_probe_loss(step)
        if saving:
            self.recorder.checkpoint(
                step,
                self.model,
                timeline=self.timeline,
                cycles=self.cycles,
                gradients=self.probe.gradients(),
                validation_loss=loss,
            )
        if saving or stopping:
            self.recorder.state(self.model, self.optimizer, self.position(step), cycles=self.cycles)
        return loss

    def position(self, step: int) -> Position:
        """What a resumption at this step needs to know."""
        return Position(
            step,
            self.clock.seconds(),
            first_phase_end=self.first_phase_end,
            seen=self.settling.seen,
            starts=self.cycles.starts,
        )

    def finite_probe_loss(self, step: int) -> float:
        """Loss on the probe; raises `NonFiniteLossError` if the weights are broken."""
        if not math.isfinite(loss := self.probe.loss()):
            raise NonFiniteLossError(f"stopped at step {step}: the loss is {loss}. {ADVICE}")
        return loss

    def trained_shapes(self) -> list[torch.Size]:
        """Shapes of the parameters that the optimizer changes."""
        return [parameter.shape for parameter in trained_parameters(self.model)]

    def report(self, step: int, loss: float, norm: float) -> None:
        """Show the update of this step, and log it where that is due."""
        progress, batch = self.recorder.progress, self.config.batch
        progress.update(step + 1, loss=loss)
        if step % self.config.log.log_every == 0:
            progress.tokens_per_second = self.clock.steps_per_second(step + 1) * batch.tokens
            values = {
                "loss": loss,
                "learning_rate": self.timeline.learning_rate(step),
                "grad_norm": norm,
                "tokens": step * batch.tokens,
                "tokens_per_second": round(progress.tokens_per_second, 1),
                "time": round(self.clock.seconds(), 3),
            }
            self.recorder.log(step, values)

    def outcome(self, step: int, loss: float, stop: StopRequest) -> TrainingOutcome:
        """How the run ended, all steps done or stopped before."""
        run, steps = self.config.out, self.config.schedule.steps
        if step == steps:
            message = f"{run}: {steps} steps, validation loss {loss:.4f} nats per token"
            return TrainingOutcome(step, "complete", message)
        reason = "out of time" if stop.signal is None else "interrupted"
        message = f"{run}: {reason}, saved at step {step} of {steps}; continue with `resume`"
        ending: Ending = "stopped" if stop.signal is None else "interrupted"
        return TrainingOutcome(step, ending, message, stop.signal)
