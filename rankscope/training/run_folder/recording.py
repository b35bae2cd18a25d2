"""The one process that writes what a run leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rankscope.run_files import write_merge
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import iter_adapters
from rankscope.training.config import Config
from rankscope.training.data.corpus import Corpus
from rankscope.training.model import LanguageModel
from rankscope.training.progress import TrainingProgress
from rankscope.training.run_folder.checkpoint import write_checkpoint
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.saves import drop_checkpoints
from rankscope.training.run_folder.state import Position, write_state
from rankscope.training.schedule import Timeline


class Recorder:
    """Writes log, checkpoints, merges and states of a run; in other processes it does nothing."""

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        log: MetricsLog,
        progress: TrainingProgress,
        *,
        writes: bool,
    ) -> None:
        self.config, self.corpus, self.metrics, self.progress = config, corpus, log, progress
        self.run, self.writes = Path(config.out), writes

    def log(self, step: int, values: Mapping[str, str | int | float]) -> None:
        """Append a line to ``metrics.jsonl``."""
        if self.writes:
            self.metrics.write(step, **values)

    def merge(self, step: int, model: LanguageModel, *, restarts: int) -> None:
        """Record the adapters just before they are merged; ``restarts`` counts this merge too."""
        if self.writes:
            factors = {
                name: (one.lora_A, one.lora_B, one.merged_scale)
                for name, one in iter_adapters(model)
            }
            write_merge(self.run, factors, step=step, restarts=restarts)

    def checkpoint(
        self,
        step: int,
        model: LanguageModel,
        *,
        timeline: Timeline,
        cycles: Cycles,
        gradients: Mapping[str, Tensor],
        validation_loss: float,
    ) -> None:
        """Write what the analysis reads, and drop the checkpoints that are no longer kept."""
        if self.writes:
            write_checkpoint(
                self.run,
                model,
                config=self.config,
                corpus=self.corpus,
                timeline=timeline,
                step=step,
                starts=cycles.starts,
                gradients=gradients,
                validation_loss=validation_loss,
            )
            drop_checkpoints(self.run, self.config.log)

    def state(
        self,
        model: LanguageModel,
        optimizer: torch.optim.Optimizer,
        position: Position,
        *,
        cycles: Cycles,
    ) -> None:
        """Write what the run can be resumed from."""
        if self.writes:
            self.metrics.flush()
            write_state(self.run, model, optimizer, position, energies=cycles.energies)
