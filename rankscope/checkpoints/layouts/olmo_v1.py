"""Unsharded checkpoints of OLMo 1: ``config.yaml`` with the weights of the model beside it.

Tensors in safetensors have odd names: base64 of a pickled ``((name,), False)``.
"""

from __future__ import annotations

import base64
import pickletools
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import read_yaml
from rankscope.checkpoints.files.opened_file import Opened, under_names, whole
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.weights_file import open_table
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError

CONFIG, SAFETENSORS, TORCH = "config.yaml", "model.safetensors", "model.pt"


def recognises(folder: Path) -> bool:
    """Whether the folder holds weights and a config as OLMo writes it."""
    if not ((folder / SAFETENSORS).is_file() or (folder / TORCH).is_file()):
        return False
    try:
        return "d_model" in _model_config(folder)
    except RankscopeError:
        return False  # many trainers write a config.yaml, so a damaged one need not be OLMo's


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged.
    """
    opened = _open_weights(folder, options)
    return contents_of(
        "olmo_v1",
        opened.tensors,
        _model_config(folder),
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def _open_weights(folder: Path, options: Options) -> Opened:
    if not (folder / SAFETENSORS).is_file():
        return open_table(folder / TORCH, options)
    path = folder / SAFETENSORS
    held = {decoded(name): tensor for name, tensor in open_tensors(path).items()}
    return whole(Opened(under_names(held)), str(path))


def decoded(name: str) -> str:
    """Name of a parameter in a safetensors file of OLMo; a plain name is returned as it is.

    The pickle is listed, not run: anybody may have written it.
    """
    try:
        pickled = base64.b64decode(name, altchars=b"-_", validate=True)
        operations = pickletools.genops(pickled)
        texts = [str(value) for code, value, _ in operations if code.name.endswith("UNICODE")]
    except ValueError:
        return name
    return ".".join(texts) or name


def _model_config(folder: Path) -> dict[str, Any]:
    """The model's section of the config, with multi-query attention under its common name."""
    model = read_yaml(folder / CONFIG).get("model")
    if not isinstance(model, dict):
        return {}
    one_for_all = model.get("n_kv_heads") is None and model.get("multi_query_attention") is True
    return {**model, "multi_query": one_for_all}


LAYOUT = Layout(
    "OLMo 1: config.yaml with model.pt or model.safetensors, in folders step1000-unsharded",
    recognises,
    read,
)
