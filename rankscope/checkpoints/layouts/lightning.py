"""Checkpoints of Lightning's trainer: one ``.ckpt`` file with ``state_dict`` and much besides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.names import block_of, plain_name
from rankscope.checkpoints.files.file_names import may_be_model
from rankscope.checkpoints.files.kinds import kind_of
from rankscope.checkpoints.files.opened_file import under_names
from rankscope.checkpoints.files.weights_file import (
    has_entries,
    open_entries,
    open_table,
    step_under,
    table_of,
)
from rankscope.checkpoints.layouts.layout import Layout, Step, step_in_file_name
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor

VERSION = "pytorch-lightning_version"
ATTRIBUTES = ("model.", "net.", "network.")
SECTIONS = ("model", "model_config", "config", "cfg")


def recognises(path: Path) -> bool:
    """Whether the file is a checkpoint of Lightning, whatever its name."""
    is_named = path.suffix == ".ckpt"
    if not is_named and (not may_be_model(path) or kind_of(path) != "torch"):
        return False
    return has_entries(path, "state_dict", VERSION, or_cut=is_named)


def read(path: Path, options: Options) -> Contents:
    """List the tensors of one checkpoint.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused.
    """
    opened = open_table(path, options, key="state_dict")
    config = config_in(open_entries(path, options).get("hyper_parameters"))
    return contents_of(
        "lightning",
        under_names(without_attribute(opened.tensors)),
        config,
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def without_attribute(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the attribute in which the Lightning module has its model.

    Only if all are in that attribute and layers remain: the ``model`` inside a model stays.
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
