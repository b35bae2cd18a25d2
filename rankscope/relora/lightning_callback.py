"""ReLoRA in Lightning's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from rankscope.errors import WrongSettingError
from rankscope.lightning_base import callback_class
from rankscope.relora.restart_clock import RestartClock


class LightningReLoRACallback(callback_class()):  # type: ignore[misc]
    """Restart the adapters of a wrapped model at regular steps of Lightning's Trainer.

    The LightningModule holds a model returned by `wrap` and one optimizer. Lightning's own
    checkpoints contain its weights and adapters, so resuming from them works as usual.

    Parameters
    ----------
    every
        Optimizer steps between restarts. There is none at the last step, if that is known.
    save
        Folder of a run for `rankscope.analyze`: a checkpoint at the start, before each restart and
        at the end, and all merges. None writes none.

    Examples
    --------
    >>> from rankscope import relora  # doctest: +SKIP
    >>> callback = relora.LightningReLoRACallback(every=2000, save="ckpts/mine")  # doctest: +SKIP
    """

    def __init__(self, every: int, *, save: str | Path | None = None) -> None:
        super().__init__()
        self.clock = RestartClock(every, save)

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Save the start."""
        if len(trainer.optimizers) != 1:
            message = f"the LightningModule has {len(trainer.optimizers)} optimizers, and ReLoRA"
            raise WrongSettingError(f"{message} needs one, with all adapters in its groups")
        if trainer.global_step == 0:
            self.clock.save(pl_module, 0)

    def on_train_batch_end(
        self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restart, if it is time; batches that only accumulate gradients do not count."""
        last = float(trainer.estimated_stepping_batches)
        self.clock.tick(pl_module, trainer.optimizers[0], trainer.global_step, last=last)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Save the end."""
        self.clock.save(pl_module, trainer.global_step)
