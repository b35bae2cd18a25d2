"""Checkpoints of Lightning's trainer: one ``.ckpt`` file with ``state_dict`` and much besides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.names import block_of, plain_name
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.single_file import step_in_file_name
from rankscope.checkpoints.layouts.torch_tables import (
    has_entries,
    open_entries,
    step_under,
    table_of,
    tensors_under,
)
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import StoredTensor

VERSION = "pytorch-lightning_version"
ATTRIBUTES = ("model.", "net.", "network.")
SECTIONS = ("model", "model_config", "config", "cfg")


def recognises(path: Path) -> bool:
    """Whether the file is a checkpoint of Lightning."""
    return path.suffix == ".ckpt" and has_entries(path, "state_dict", VERSION)


def read(path: Path, options: Options) -> Contents:
    """List the tensors of one checkpoint.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused.
    """
    entries = open_entries(path, options)
    tensors, skips = tensors_under(entries, "state_dict", path)
    config = config_in(entries.get("hyper_parameters"))
    return contents_of("lightning", without_attribute(tensors), config, options, skips=skips)


def without_attribute(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors without the attribute in which the Lightning module keeps its model.

    Only if all are in that attribute, and layers are left: a model's own ``model`` stays.
    """
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    for attribute in ATTRIBUTES:
        bare = [name.removeprefix(attribute) for name in plain]
        if all(name.startswith(attribute) for name in plain) and any(
            block_of(name)[:1].isalpha() for name in bare
        ):
            return dict(zip(bare, plain.values(), strict=True))
    return plain


def config_in(parameters: Any) -> dict[str, Any]:
    """The arguments of the module, and those of the model, which may be a table among them."""
    config = table_of(parameters)
    for section in SECTIONS:
        config |= table_of(config.get(section))
    return config


def step(path: Path) -> Step | None:
    """Step that the file states; its name where it is refused."""
    return step_under(path, "global_step") or step_in_file_name(path)


LAYOUT = Layout(
    "Lightning: epoch=0-step=100.ckpt with state_dict",
    recognises,
    read,
    step,
    is_file=True,
)
