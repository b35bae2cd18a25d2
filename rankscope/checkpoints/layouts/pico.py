"""Checkpoints of pico-train and pico-relora: ``step_N/`` with a Hugging Face model and more.

Beside the model there may be ``fabric_state``, which a training resumes from, and
``learning_dynamics``, with gradients of a few projections on the batch of that step.

pico-relora saves before a merge of the same step, so most checkpoints hold an adapter at the end of
its cycle. Its trainer merges B·A without the scale s of the forward pass, so the function jumps
from W + s·B·A to W + B·A at every reset. An ``update`` is what the function changed by,
W′ + s·B′A′ − W − s·B·A. Across a reset it contains the jump, (1 − s) times the merged B·A, which is
part of what that training did. Where s is 1 there is no jump.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.adapters.inner_adapters import Ends, separated
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.config_files import read_json, read_yaml
from rankscope.checkpoints.files.opened_file import Opened, under_names
from rankscope.checkpoints.files.weights_file import open_table, step_under
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

# model_type, today's and those before 2025 → the prefix of names in the Hugging Face model.
PREFIXES = {
    "pico_decoder": "pico_decoder.",
    "pico_relora_decoder": "pico_decoder.",
    "pico": "pico.",
    "relora-pico": "pico.",
}
ENDS = Ends(lora_A=".A_lora.weight", lora_B=".B_lora.weight", scale=".s")
FABRIC, DYNAMICS, SETTINGS = "fabric_state", "learning_dynamics", "training_config.yaml"
ONE_DEVICE, SEVERAL = f"{FABRIC}/checkpoint.pt", f"{FABRIC}/checkpoint/mp_rank_*_model_states.pt"
GRADIENTS = ("train_gradients.pt", "val_gradients.pt")
IN_LAYER = re.compile(r"(?:.*\.)?(layers\.\d+\..+)")


def recognises(folder: Path) -> bool:
    """Whether the folder holds a pico model, by its config or the folders beside it."""
    if huggingface.recognises(folder):
        beside = any((folder / name).is_dir() for name in (FABRIC, DYNAMICS))
        return beside or _model_type(folder) in PREFIXES
    return (folder / ONE_DEVICE).is_file() or any(True for _ in folder.glob(SEVERAL))


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If the weights or their config are damaged or do not state the scale of the adapters.
    """
    settings = _settings(folder)
    config = read_json(folder / "config.json") or _table(settings, "model")
    relora = _table(config, "relora")
    opened = _open_weights(folder, options)
    path = folder / "config.json"
    parts = separated(opened.tensors, ENDS, alpha=relora.get("lora_alpha"), config=path)
    gradients, unmatched = _open_gradients(folder, parts.tensors, options)
    return contents_of(
        "pico",
        parts.tensors,
        config,
        options,
        adapters=parts.adapters,
        gradients=gradients,
        skips=(*opened.skips, *parts.skips, *unmatched),
        notes=opened.notes,
        aside=(*opened.aside, *parts.aside),
        restarts=_restarts(folder, relora, settings) if relora else None,
    )


def step(folder: Path) -> Step | None:
    """Step in the folder's name, else in the state that a training on one device resumes from."""
    return step_of(folder) or step_under(folder / ONE_DEVICE, "_checkpoint_step")


def merges_before(step: int, *, every: int, warmup: int) -> int:
    """Number of merges before a checkpoint: after each step s > warmup with s mod every = 1.

    The checkpoint of a step is saved before its merge, which therefore does not count.
    """
    first = warmup + 1 + -warmup % every
    return max(0, -(-(step - first) // every)) if every > 1 else 0


def _model_type(folder: Path) -> str:
    try:
        return str(read_json(folder / "config.json").get("model_type"))
    except RankscopeError:
        return ""  # the layout that recognises the folder will show it when it reads it


def _settings(folder: Path) -> Mapping[str, Any]:
    """Settings of the run: beside its checkpoints, or in them as on the hub and in old runs.

    They only add to what the config says, so damaged ones count as absent.
    """
    for place in (folder.resolve().parent.parent, folder, folder / FABRIC):
        try:
            settings = read_yaml(place / SETTINGS)
        except RankscopeError:
            continue
        if settings:
            return settings
    return {}


def _table(entries: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    held = entries.get(key)
    return held if isinstance(held, Mapping) else {}


def _restarts(folder: Path, relora: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
    """Merges so far by the trainer's rule; an upper bound if the warm-up is not known."""
    now, every = step(folder), relora.get("reset_frequency")
    warmup = _table(_table(settings, "training"), "optimization").get("lr_warmup_steps")
    if relora.get("lora_only") is True:
        return 0
    if now is None or type(every) is not int or every < 1:
        return None
    return merges_before(now[0], every=every, warmup=max(warmup, 0) if type(warmup) is int else 0)


def _open_weights(folder: Path, options: Options) -> Opened:
    """Tensors under the names of the Hugging Face model, from the place where they are whole."""
    if huggingface.recognises(folder):
        return huggingface.open_all(folder, options)
    path, key = folder / ONE_DEVICE, "_model"
    if not path.is_file():
        slices = sorted(folder.glob(SEVERAL))
        if len(slices) != 1:
            raise RankscopeError(
                f"holds its weights only in {len(slices)} slices: make whole ones with "
                "zero_to_fp32.py",
                path=folder / FABRIC,
            )
        path, key = slices[0], "module"
    prefix = PREFIXES.get(_model_type(folder), "pico_decoder.")
    opened = open_table(path, options, key=key)
    named = {prefix + plain_name(name): tensor for name, tensor in opened.tensors.items()}
    return replace(opened, tensors=under_names(named))


def _open_gradients(
    folder: Path, tensors: Mapping[str, Tensor], options: Options
) -> tuple[dict[str, Tensor], list[Skip]]:
    """Gradients by the name of their weight, and a skip for each without a weight.

    They are stored by module, without the prefix of the Hugging Face model.
    """
    path = next((p for n in GRADIENTS if (p := folder / DYNAMICS / n).is_file()), None)
    if path is None:
        return {}, []
    try:
        opened = open_table(path, options)
    except RankscopeError as error:
        return {}, [Skip(str(path), "", error.reason, error.message)]
    weights = {_in_layer(name.removesuffix(".weight")): name for name in tensors}
    gradients: dict[str, Tensor] = {}
    skips = [*opened.skips]
    for module, tensor in opened.tensors.items():
        name = weights.get(_in_layer(plain_name(module)))
        if name is not None and tensors[name].shape == tensor.shape:
            gradients[name] = tensor
        else:
            message = "is the gradient of a weight that is not there, or has another shape"
            skips.append(Skip(str(path), module, "gradient-misfit", message))
    return gradients, skips


def _in_layer(module: str) -> str:
    """Path of a module from its layer on; the whole path outside of layers."""
    match = IN_LAYER.fullmatch(module)
    return module if match is None else match[1]


LAYOUT = Layout(
    "pico-train and pico-relora: step_N with model.safetensors, or fabric_state, of a pico model",
    recognises,
    read,
    step,
)
