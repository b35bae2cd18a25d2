"""The state from which a run goes on, bit for bit: parameters, Adam's moments, the step.

Batches, new adapters and initial weights come from keyed generators, so there is no state of a
random generator to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.training.checkpoint import step_name
from rankscope.training.saving import damage, remove_folder, write_folder
from rankscope.training.tensor_bytes import tensor_bytes

STATE_FORMAT = "rankscope-state-1"
KEPT_STATES = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Position:
    """Where a run is: optimizer steps completed and seconds of training so far."""

    step: int = 0
    seconds: float = 0.0


def write_state(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: Position
) -> None:
    """Write ``state/step-<step>`` of a run, and only then remove all but the newest two."""
    moments: dict[str, Tensor] = {}
    adam_steps: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if state := optimizer.state.get(parameter):
            adam_steps[name] = int(state["step"])
            moments |= {f"{name}.{moment}": state[moment] for moment in _MOMENTS}
    files = {
        "model.safetensors": tensor_bytes(model.state_dict()),
        "optimizer.safetensors": tensor_bytes(moments),
        "state.json": json.dumps({**asdict(position), "adam_steps": adam_steps}).encode(),
    }
    write_folder(run / "state" / step_name(position.step), files, kind=STATE_FORMAT)
    for old in list(iter_states(run))[KEPT_STATES:]:
        remove_folder(old)


def iter_states(run: Path) -> Iterator[Path]:
    """State folders of a run, the newest first, unverified."""
    yield from sorted((run / "state").glob("step-*"), reverse=True)


def newest_state(run: Path) -> tuple[Path | None, list[str]]:
    """Find the newest state that is what was written.

    Returns
    -------
    Its folder, or None where the run has no states; and one sentence a damaged state passed over.

    Raises
    ------
    RankscopeError
        If there are states and all are damaged: starting over would overwrite the run.
    """
    passed_over: list[str] = []
    for folder in iter_states(run):
        reason = damage(folder)
        if reason is None:
            return folder, passed_over
        passed_over.append(f"{folder} is damaged ({reason})")
    if passed_over:
        raise RankscopeError(
            f"refusing to start over, for every state of this run is damaged: "
            f"{'; '.join(passed_over)}",
            path=run,
        )
    return None, []


def read_position(folder: Path) -> Position:
    """Where the run was when this state was written."""
    state = json.loads((folder / "state.json").read_bytes())
    return Position(step=state["step"], seconds=state["seconds"])


def load_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a state back into a model and an optimizer of the same configuration."""
    model.load_state_dict(load_file(folder / "model.safetensors"))
    moments = load_file(folder / "optimizer.safetensors")
    adam_steps: dict[str, int] = json.loads((folder / "state.json").read_bytes())["adam_steps"]
    parameters = dict(model.named_parameters())
    for name, step in adam_steps.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {
            # Fused AdamW wants its step as a float32 tensor beside the parameter.
            "step": torch.tensor(float(step), device=parameter.device),
            **{m: moments[f"{name}.{m}"].to(parameter.device) for m in _MOMENTS},
        }
