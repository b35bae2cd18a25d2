"""When a callback restarts and saves: what the callbacks of all trainers have in common."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rankscope.errors import WrongSettingError
from rankscope.relora.adapted_model import wrapped_in, wrapping
from rankscope.relora.relora_folder import save, write_waiting
from rankscope.relora.restarting import restart


class RestartClock:
    """Restarts the adapters at regular optimizer steps, and keeps a record of the run.

    Parameters
    ----------
    every
        Optimizer steps between restarts.
    folder
        Where to save at the start, before each restart and at the end; None saves nothing.
    """

    def __init__(self, every: int, folder: str | Path | None) -> None:
        if every < 1:
            raise WrongSettingError(f"`every` is {every}; it must be at least 1 step")
        self.every, self.folder = every, None if folder is None else Path(folder)

    def save(self, model: nn.Module, step: int) -> None:
        """Write a checkpoint, unless this step has one or its adapters have been merged."""
        kept = wrapping(wrapped_in(model))
        is_late = kept.merged is not None and step <= kept.merged
        if self.folder is not None and step != kept.saved and not is_late:
            save(model, self.folder, step)

    def tick(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, *, last: float
    ) -> bool:
        """Restart if it is time, and say whether it was; not at the last step, nor twice at one.

        The merge is on the disk when this returns: the trainer's own checkpoint of the step, from
        which it may be resumed, has it too.
        """
        kept = wrapping(wrapped_in(model))
        if step == 0 or step % self.every or step >= last or step == kept.merged:
            return False
        self.save(model, step)
        # The number that a training without a break has, also after one that forgets it.
        cycle = max(kept.cycle + 1, step // self.every)
        restart(model, optimizer, cycle=cycle, step=step)
        if self.folder is not None:
            write_waiting(wrapped_in(model), self.folder)
        return True
