"""A wrapped model on disk, as `rankscope.analyze` reads it, and back.

FOLDER/checkpoints/step-00002000/config.json + model.safetensors    frozen and other weights
FOLDER/checkpoints/step-00002000/adapter/                           a PEFT adapter
FOLDER/checkpoints/step-00002000/state.json                         step, cycle, restarts, seed
FOLDER/merges/step-00002000.safetensors                             the adapters as merged
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from torch import Tensor, nn

from rankscope.durable import write_folder
from rankscope.errors import (
    RankscopeError,
    RankscopeWarning,
    WrongSettingError,
    require_folder,
)
from rankscope.relora.adapted_model import (
    ADAPTER,
    adapted,
    factors_of,
    plain_name,
    wrapped_in,
    wrapping,
)
from rankscope.relora.wrapping import wrap
from rankscope.run_files import (
    RELORA_FORMAT,
    STEP_NAME,
    json_bytes,
    peft_tensors,
    step_name,
    tensor_bytes,
    write_merge,
)

WEIGHTS, CONFIG, STATE = "model.safetensors", "config.json", "state.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def save(model: nn.Module, folder: str | Path, step: int) -> Path:
    """Write a wrapped model and the merges since the last save, for `rankscope.analyze` to read.

    The checkpoint has the weights without the adapters, which transformers opens if the model is
    one of its own, and the adapters in PEFT's format. Each file or folder is either complete or
    absent. Save before you restart: a checkpoint holds the state before the merge of its step. In a
    distributed training, every process may call it, and the first one writes.

    Parameters
    ----------
    model
        A model returned by `wrap`, or one that contains it, as DDP does.
    folder
        Folder of the run, such as ``ckpts/mine``; created if it is missing.
    step
        Optimizer steps completed.

    Returns
    -------
    The folder of the checkpoint, ``FOLDER/checkpoints/step-<step>``; one of the same step is
    replaced.

    Raises
    ------
    WrongSettingError
        If the adapters have been merged at this step or later, or ``folder`` is a file.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> model = relora.wrap(torch.nn.Sequential(torch.nn.Linear(6, 8)), rank=2)
    >>> relora.save(model, "mine", 0).name
    'step-00000000'
    """
    wrapped, folder = wrapped_in(model), Path(folder)
    require_folder(folder, setting="folder")
    kept = wrapping(wrapped)
    if step < 0:
        raise WrongSettingError(f"`step` is {step}; it must be at least 0")
    if kept.merged is not None and step <= kept.merged:
        message = f"`step` is {step}, but the adapters were merged at step {kept.merged}, and a"
        raise WrongSettingError(f"{message} checkpoint precedes the merge: save before you restart")
    checkpoint = folder / "checkpoints" / step_name(step)
    if _writes():
        write_waiting(wrapped, folder)
        write_folder(checkpoint, _files(wrapped, step), kind=RELORA_FORMAT)
    kept.waiting.clear()
    _keep_saved(wrapped, step)
    return checkpoint


def load(model: nn.Module, folder: str | Path, step: int | None = None) -> PeftModel:
    """Wrap a plain model like a saved one, with its weights and adapters, to continue training.

    Saving the optimizer is up to you: create it from the returned model. Its state for the adapters
    is not needed if you continue at a restart.

    Parameters
    ----------
    model
        A model of the same classes as the saved one, without adapters; its weights are replaced.
    folder
        Folder of the run, as given to `save`.
    step
        Which checkpoint; by default the last one.

    Returns
    -------
    A model as `wrap` returns it, in the cycle in which it was saved.

    Raises
    ------
    RankscopeError
        If there is no such checkpoint, or it does not fit the model.

    Examples
    --------
    >>> import torch
    >>> from rankscope import relora
    >>> model = relora.wrap(torch.nn.Sequential(torch.nn.Linear(6, 8)), rank=2, seed=1)
    >>> _ = relora.save(model, "mine", 40)
    >>> same = relora.load(torch.nn.Sequential(torch.nn.Linear(6, 8)), "mine")
    >>> x = torch.ones(1, 6)
    >>> torch.equal(same(x), model(x))
    True
    """
    checkpoint = _checkpoint(Path(folder), step)
    try:
        state = json.loads((checkpoint / STATE).read_bytes())
        config = json.loads((checkpoint / "adapter" / ADAPTER_CONFIG).read_bytes())
        factors = tensors_of((checkpoint / "adapter" / ADAPTER_WEIGHTS).read_bytes())
        load_weights(model, checkpoint / WEIGHTS)
        wrapped = wrap(
            model,
            config["r"],
            alpha=config["lora_alpha"],
            targets=config["target_modules"],
            seed=state["seed"],
            frozen=state["frozen"],
        )
        kept = wrapping(wrapped)
        kept.cycle, kept.restarts, saved = state["cycle"], state["restarts"], int(state["step"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        message = f"is not a complete checkpoint of relora.save: {error}"
        raise RankscopeError(message, path=checkpoint) from None
    _fill(wrapped, factors, checkpoint)
    _keep_saved(wrapped, saved)
    return wrapped


def write_waiting(model: PeftModel, folder: Path) -> None:
    """Write the merges that no file records yet, if this process is the one that writes."""
    kept = wrapping(model)
    for step, certain, restarts, merged in kept.waiting if _writes() else ():
        factors = {name: (one.lora_A, one.lora_B, one.scale) for name, one in merged.items()}
        write_merge(folder, factors, step=step, restarts=restarts)
        if not certain:
            message = f"merge {restarts} is recorded at step {step}, that of the last `save`"
            warnings.warn(
                f"{message}, although training went on after it: give `restart` the `step`",
                RankscopeWarning,
                stacklevel=3,
            )
    kept.waiting.clear()


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers by their plain names, without adapters; tied ones once."""
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    stored = plain.state_dict().keys()
    return {
        plain_name(name): tensor
        for name, tensor in (*plain.named_parameters(), *plain.named_buffers())
        if ".lora_" not in name and name in stored
    }


def state_bytes(model: PeftModel, step: int) -> bytes:
    """The record of a checkpoint on the restarts before it."""
    kept = wrapping(model)
    state = {"step": step, "cycle": kept.cycle, "restarts": kept.restarts}
    return json_bytes({**state, "seed": kept.seed, "frozen": kept.frozen})


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model, wrapped or not, with the tensors that `base_tensors` gave.

    Raises
    ------
    RankscopeError
        If the file lacks a weight, has another, or one of another shape; nothing is changed then.
    """
    held, stored = base_tensors(model), tensors_of(path.read_bytes())
    for name in sorted(held.keys() | stored.keys()):
        if name not in held or name not in stored or held[name].shape != stored[name].shape:
            shapes = (list(one[name].shape) if name in one else "absent" for one in (stored, held))
            message = "is {} here but {} in the model, so the models differ".format(*shapes)
            raise RankscopeError(message, path=path, tensor=name)
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(stored[name])


def _files(model: PeftModel, step: int) -> dict[str, bytes]:
    """The files of a checkpoint by their paths within it."""
    factors = {name: factors_of(layer)[:2] for name, layer in adapted(model).items()}
    return {
        CONFIG: json_bytes(config_of(model.get_base_model())),
        WEIGHTS: tensor_bytes(base_tensors(model)),
        STATE: state_bytes(model, step),
        f"adapter/{ADAPTER_CONFIG}": json_bytes(_adapter_config(model)),
        f"adapter/{ADAPTER_WEIGHTS}": tensor_bytes(peft_tensors(factors)),
    }


def config_of(plain: nn.Module) -> dict[str, Any]:
    """The config of a model of transformers, as it writes it; of another, its class."""
    stated = getattr(getattr(plain, "config", None), "to_json_string", None)
    config = json.loads(stated()) if callable(stated) else {}
    return {**config, "architectures": [type(plain).__name__]}


def _adapter_config(model: PeftModel) -> dict[str, Any]:
    stated = model.peft_config[ADAPTER].to_dict()
    config = {name: sorted(v) if isinstance(v, set) else v for name, v in stated.items()}
    return config | {"base_model_name_or_path": "..", "inference_mode": True}


def _checkpoint(folder: Path, step: int | None) -> Path:
    """The checkpoint of a step, or of the last one."""
    held = folder / "checkpoints"
    steps = sorted(
        int(match[1])
        for path in (held.iterdir() if held.is_dir() else ())
        if (match := STEP_NAME.fullmatch(path.name))
    )
    if not steps or step not in (None, *steps):
        shown = f"steps {steps[0]} to {steps[-1]}" if steps else "no checkpoint of relora.save"
        wanted = "" if step is None or not steps else f" and not {step}"
        raise RankscopeError(f"holds {shown}{wanted}", path=folder)
    return held / step_name(steps[-1] if step is None else step)


def _fill(model: PeftModel, factors: dict[str, Tensor], checkpoint: Path) -> None:
    """Give the adapters their stored factors."""
    held = {name: factors_of(layer)[:2] for name, layer in adapted(model).items()}
    if peft_tensors(held).keys() != factors.keys():
        raise RankscopeError("has adapters on other layers than the model", path=checkpoint)
    with torch.no_grad():
        for name, factor in peft_tensors(held).items():
            factor.copy_(factors[name])


def _keep_saved(model: PeftModel, step: int) -> None:
    """Remember that the model is as the checkpoint of a step."""
    kept, first = wrapping(model), next(iter(adapted(model).values()))
    kept.saved, kept.saved_b = step, factors_of(first)[1].detach().to("cpu", copy=True)


def _writes() -> bool:
    """Whether this process writes, of those that train together."""
    is_one_of_several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not is_one_of_several or torch.distributed.get_rank() == 0
