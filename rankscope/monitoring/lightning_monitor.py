"""A monitor in Lightning's Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankscope.lightning_base import callback_class
from rankscope.monitoring.monitor import Monitor

if TYPE_CHECKING:
    from torch import nn


class LightningMonitorCallback(callback_class()):  # type: ignore[misc]
    """Lets a monitor measure a module that Lightning's Trainer trains.

    It measures at the end of a batch that ended with a step of the optimizer. Gradients are still
    there: Lightning resets them with the next batch. Only the first process measures.

    Parameters
    ----------
    monitor
        A monitor of the LightningModule, or of the model in it; closed at the end of the training.

    Examples
    --------
    Give it as ``lightning.Trainer(callbacks=[rs.LightningMonitorCallback(monitor)], ...)``:

    >>> import rankscope as rs, torch
    >>> model = torch.nn.Linear(8, 8)
    >>> callback = rs.LightningMonitorCallback(rs.Monitor(model, "monitored", every=500))
    >>> callback.monitor.close()
    """

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Measure where the training starts or resumes."""
        self._measure(trainer)

    def on_train_batch_end(
        self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure what is due; batches that only accumulate gradients do not count."""
        self._measure(trainer)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Wait until everything is measured."""
        self.monitor.close()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Keep what was measured before the training failed."""
        self.monitor.close()

    def _measure(self, trainer: Any) -> None:
        if trainer.is_global_zero:
            self.monitor.step(trainer.global_step)
