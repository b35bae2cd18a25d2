"""ReLoRA in transformers' Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rankscope.durable import write_file
from rankscope.errors import RankscopeError
from rankscope.relora.adapted_model import wrapped_in, wrapping
from rankscope.relora.relora_folder import (
    ADAPTER_CONFIG,
    CONFIG,
    STATE,
    WEIGHTS,
    base_tensors,
    config_of,
    load_weights,
    state_bytes,
)
from rankscope.relora.restart_clock import RestartClock
from rankscope.run_files import json_bytes, tensor_bytes

BASE = "base"  # folder of the weights in the Trainer's own checkpoints


class ReLoRACallback(TrainerCallback):
    """Restart the adapters of a wrapped model at regular steps of transformers' Trainer.

    The Trainer saves only the adapters of a PEFT model, so after a merge the weights would be lost.
    This callback writes them too, into ``checkpoint-<step>/base``, which the adapter's config then
    names as its base, and reads them when the Trainer resumes from there: give it a model that is
    wrapped as at the start.

    Parameters
    ----------
    every
        Optimizer steps between restarts. There is none at the last step.
    save
        Folder of a run for `rankscope.analyze`: a checkpoint at the start, before each restart,
        with each of the Trainer's and at the end, and all merges. None writes none.

    Examples
    --------
    Give it as ``Trainer(model=relora.wrap(model, rank=16), callbacks=[callback], ...)``:

    >>> from rankscope import relora
    >>> callback = relora.ReLoRACallback(every=2000, save="ckpts/mine")
    >>> relora.ReLoRACallback(every=0)
    Traceback (most recent call last):
    rankscope.errors.WrongSettingError: `every` is 0; it must be at least 1 step
    """

    def __init__(self, every: int, *, save: str | Path | None = None) -> None:
        self.clock = RestartClock(every, save)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Save the start, or fill the weights of a training that is resumed."""
        held = _held(model)
        if state.global_step == 0:
            self.clock.save(held, 0)
            return
        path = _base(args, state)
        if not path.is_file():
            message = "is missing, so the weights that the adapters were merged into are not known"
            raise RankscopeError(f"{message}: start again, or from another checkpoint", path=path)
        wrapped = wrapped_in(held)
        load_weights(wrapped, path)
        _count_on(wrapped, path.with_name(STATE))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **_: Any,
    ) -> None:
        """Restart, if it is time."""
        if optimizer is not None:
            self.clock.tick(_held(model), optimizer, state.global_step, last=state.max_steps)

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Write the weights beside the adapters that the Trainer has just saved."""
        held = _held(model)
        self.clock.save(held, state.global_step)
        if state.is_world_process_zero:
            _write_base(wrapped_in(held), _base(args, state), state.global_step)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Save the end."""
        self.clock.save(_held(model), state.global_step)


def _held(model: nn.Module | None) -> nn.Module:
    if model is None:
        raise RankscopeError("the Trainer passed no model to ReLoRACallback")
    return model


def _count_on(model: PeftModel, path: Path) -> None:
    """Let a model of a resumed training know of the restarts that it had.

    Raises
    ------
    RankscopeError
        If they cannot be read.
    """
    kept = wrapping(model)
    try:
        state = json.loads(path.read_bytes())
        kept.cycle, kept.restarts = int(state["cycle"]), int(state["restarts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"does not say how often the adapters were restarted: {error}"
        raise RankscopeError(f"{message}; resume from another checkpoint", path=path) from None


def _write_base(model: PeftModel, weights: Path, step: int) -> None:
    """Write the base of an adapter below it, and name it in the adapter's config.

    The model that the config named before has weights without the merges. Its state counts them.
    """
    write_file(weights.with_name(STATE), state_bytes(model, step))
    write_file(weights.with_name(CONFIG), json_bytes(config_of(model.get_base_model())))
    write_file(weights, tensor_bytes(base_tensors(model)))
    path = weights.parents[1] / ADAPTER_CONFIG
    if path.is_file():
        write_file(
            path, json_bytes({**json.loads(path.read_bytes()), "base_model_name_or_path": BASE})
        )


def _base(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}" / BASE / WEIGHTS
