"""The state from which a run goes on, bit for bit: parameters, Adam's moments, the step.

Batches, new adapters and initial weights come from keyed generators, so there is no state of a
random generator to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rankscope.durable import damage, remove_folder, write_folder
from rankscope.errors import RankscopeError
from rankscope.training.adapters.cycles import Begun, Cycles
from rankscope.training.adapters.lora_linear import renew, wrap
from rankscope.training.run_folder.checkpoint import step_name
from rankscope.training.run_folder.tensor_bytes import tensor_bytes

STATE_FORMAT = "rankscope-state-2"
KEPT_STATES = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Position:
    """Where a run is, and what it remembers beside its tensors.

    Attributes
    ----------
    step, seconds
        Optimizer steps completed, and the time they took.
    first_phase_end
        Where the first phase ended before its time, if it did.
    seen
        What was seen of the ranks of the updates, see `Settling`.
    begun
        What is known of the present adapters, see `Cycles`.
    """

    step: int = 0
    seconds: float = 0.0
    first_phase_end: int | None = None
    seen: dict[str, float] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)


def write_state(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    energies: dict[str, Tensor],
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
    if energies:
        files["energies.safetensors"] = tensor_bytes(energies)
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
    del state["adam_steps"]
    return Position(**state)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, cycles: Cycles
) -> None:
    """Put a state back into the initial model of the same configuration and its optimizer."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(".lora_A"):
            module, scale = name.removesuffix(".lora_A"), cycles.config.adapter.scale(len(tensor))
            wrap(model, module, tensor, scale=scale, make=cycles.layer)
    model.load_state_dict(tensors)
    renew(optimizer, model)
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
    energies = folder / "energies.safetensors"
    cycles.energies = load_file(energies) if energies.exists() else {}
    cycles.begun = read_position(folder).begun
