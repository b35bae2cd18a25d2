"""The state from which a run resumes, bit for bit: parameters, Adam's moments, the step.

Batches, new adapters and initial weights come from keyed generators, so no random generator has a
state to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn

from rankscope.durable import damage, read_manifest, remove_folder, write_folder
from rankscope.errors import RankscopeError, printable
from rankscope.run_files import STEP_NAME, step_name, tensor_bytes
from rankscope.training.adapters.cycles import Cycles, CycleStart
from rankscope.training.adapters.lora_linear import renew, wrap
from rankscope.training.model import LanguageModel, load_weights

STATE_FORMAT = "rankscope-state-3"
KEPT_STATES = 2
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Position:
    """Where a run is, and what it remembers besides its tensors.

    Attributes
    ----------
    step, seconds
        Optimizer steps completed, and the time they took.
    first_phase_end
        Step at which the first phase ended, if it ended early.
    seen
        Ranks of the updates so far, see `Settling`.
    starts
        How the present adapters began, see `Cycles`.
    """

    step: int = 0
    seconds: float = 0.0
    first_phase_end: int | None = None
    seen: dict[str, float] = field(default_factory=dict)
    starts: dict[str, CycleStart] = field(default_factory=dict)


def write_state(
    run: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    energies: dict[str, Tensor],
) -> None:
    """Write ``state/step-<step>`` of a run, then remove all earlier states but one.

    A state of a later step is one that was damaged when the run was resumed: it stays until the run
    gets there again, and is not one of the two that are kept.
    """
    moments: dict[str, Tensor] = {}
    adam_steps: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if state := optimizer.state.get(parameter):
            adam_steps[name] = int(state["step"])
            moments |= {f"{name}.{moment}": state[moment] for moment in _MOMENTS}
    files = {
        "model.safetensors": tensor_bytes(dict(model.named_parameters())),
        "optimizer.safetensors": tensor_bytes(moments),
        "state.json": json.dumps({**asdict(position), "adam_steps": adam_steps}).encode(),
    }
    if energies:
        files["energies.safetensors"] = tensor_bytes(energies)
    write_folder(run / "state" / step_name(position.step), files, kind=STATE_FORMAT)
    usable = [state for state in iter_states(run) if step_of(state) <= position.step]
    for old in usable[KEPT_STATES:]:
        remove_folder(old)


def iter_states(run: Path) -> Iterator[Path]:
    """State folders of a run, the newest first, not verified."""
    named = (path for path in (run / "state").glob("step-*") if STEP_NAME.fullmatch(path.name))
    yield from sorted(named, key=step_of, reverse=True)


def step_of(state: Path) -> int:
    """The step that the name of a state folder says."""
    return int(state.name.removeprefix("step-"))


def newest_state(run: Path) -> tuple[Path | None, list[str]]:
    """Find the newest undamaged state.

    Returns
    -------
    Its folder, or None if the run has no states; and a sentence for each damaged state that was
    passed over.

    Raises
    ------
    RankscopeError
        If there are states and all are damaged: starting over would overwrite the run. If another
        version of the trainer wrote the only undamaged ones.
    """
    passed_over: list[str] = []
    other: tuple[Path, object] | None = None
    for folder in iter_states(run):
        reason = damage(folder)
        written = None if reason else read_manifest(folder).get("format")
        if written == STATE_FORMAT:
            return folder, passed_over
        if reason is None:
            reason = f"its format is {printable(repr(written), limit=80)}"
            other = other or (folder, written)
        passed_over.append(f"{folder} is damaged ({printable(reason)})")
    if other is not None:
        raise RankscopeError(
            f"is a state of the format {printable(repr(other[1]), limit=80)}, and this version "
            f"resumes {STATE_FORMAT!r}: resume with the version that wrote it",
            path=other[0],
        )
    if passed_over:
        raise RankscopeError(
            "every state of this run is damaged, and starting over would overwrite it: "
            f"{'; '.join(passed_over)}. Choose another `out`",
            path=run,
        )
    return None, []


def read_position(folder: Path) -> Position:
    """Where the run was when this state, which `newest_state` found, was written."""
    state = json.loads((folder / "state.json").read_bytes())
    del state["adam_steps"]
    return Position(**state)


def load_state(
    folder: Path, model: LanguageModel, optimizer: torch.optim.Optimizer, cycles: Cycles
) -> None:
    """Load a state into the initial model of the same configuration, and into its optimizer."""
    tensors = load((folder / "model.safetensors").read_bytes())
    for name, tensor in tensors.items():
        if name.endswith(".lora_A"):
            module, scale = name.removesuffix(".lora_A"), cycles.config.adapter.scale(len(tensor))
            wrap(model, module, tensor, scale=scale, make=cycles.layer)
    load_weights(model, tensors)
    renew(optimizer, model)
    moments = load((folder / "optimizer.safetensors").read_bytes())
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
    cycles.energies = load(energies.read_bytes()) if energies.exists() else {}
    cycles.starts = read_position(folder).starts
