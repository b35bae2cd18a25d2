"""The folders beside a sentence-transformers model with the weights of the maps that follow it."""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.files.opened_file import Opened, together, under_names
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor

LIST = "modules.json"
MODULE = re.compile(r"\d+_[A-Za-z]\w*")  # `2_Dense`: its place and its class
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def module_folders(folder: Path) -> list[Path]:
    """The folders of the modules of a model, in order; empty unless it is one of these models."""
    if not (folder / LIST).is_file():
        return []
    found = (path for path in folder.iterdir() if MODULE.fullmatch(path.name) and path.is_dir())
    return sorted(found, key=lambda path: int(path.name.partition("_")[0]))


def open_modules(folder: Path, options: Options) -> Opened:
    """The tensors of the modules, each with the name of its folder before its own.

    Raises
    ------
    RankscopeError
        If a file is damaged.
    """
    opened: list[Opened] = []
    tensors: dict[str, Tensor] = {}
    for module in module_folders(folder):
        path = next((module / name for name in WEIGHTS if (module / name).is_file()), None)
        if path is not None:
            one = open_file(path, trust=options.trust_pickle)
            opened.append(one)
            tensors |= {f"{module.name}.{name}": tensor for name, tensor in one.tensors.items()}
    return together(opened, under_names(tensors))
