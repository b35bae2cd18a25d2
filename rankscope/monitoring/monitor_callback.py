"""A monitor in transformers' Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankscope.monitoring.monitor import Monitor

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
else:
    try:
        from transformers import TrainerCallback
    except ModuleNotFoundError:  # nothing to be called by
        TrainerCallback = object


class MonitorCallback(TrainerCallback):
    """Lets a monitor measure a model that transformers' Trainer trains.

    It measures between the step of the optimizer and `zero_grad`, so gradients are those of the
    whole accumulated batch, after clipping. Only the first process measures.

    Parameters
    ----------
    monitor
        A monitor of the model that the Trainer is given; closed at the end of the training.

    Examples
    --------
    Give it as ``Trainer(model, callbacks=[rs.MonitorCallback(monitor)], ...)``:

    >>> import rankscope as rs, torch
    >>> model = torch.nn.Linear(8, 8)
    >>> callback = rs.MonitorCallback(rs.Monitor(model, "monitored", every=500))
    >>> callback.monitor.close()
    """

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure where the training starts or resumes."""
        self._measure(state, state.global_step)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure what is due; the Trainer has not counted this step yet."""
        self._measure(state, state.global_step + 1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Wait until everything is measured."""
        self.monitor.close()

    def _measure(self, state: TrainerState, step: int) -> None:
        if state.is_world_process_zero:
            self.monitor.step(step)
