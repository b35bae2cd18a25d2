"""Torch distributed checkpoints: of torchtitan, OLMo-core, Fabric and Accelerate with FSDP.

All have a folder with ``.metadata`` and the pieces that each process held. Trainers put it directly
into the folder of a step or into one below, and the model's config beside or above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import read_json, read_yaml
from rankscope.checkpoints.files.distributed_file import METADATA, open_distributed
from rankscope.checkpoints.files.opened_file import Opened, check_whole
from rankscope.checkpoints.files.safetensors_file import iter_shards, open_shards
from rankscope.checkpoints.files.training_state import without_training_state
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of

# Where it is below the folder of a step: OLMo-core, Accelerate, and torch's safetensors writer.
BELOW = ("model_and_optim", "pytorch_model_fsdp_0", "sharded")
SERIES = ("checkpoint", "checkpoints")


def recognises(folder: Path) -> bool:
    """Whether the folder is, or has in it, a distributed checkpoint that was written to its end."""
    return _place(folder) is not None


def read(folder: Path, options: Options) -> Contents:
    """Read what a checkpoint says of its pieces, none of which is opened.

    Raises
    ------
    RankscopeError
        If a file is damaged or missing.
    """
    place = _place(folder) or folder
    if (place / METADATA).is_file():
        opened = open_distributed(place)
    else:
        kept, states = without_training_state(open_shards(place))
        opened = Opened(kept, tuple(states))
    check_whole(opened.tensors, str(place))
    return contents_of("dcp", opened.tensors, _config(place), options, aside=opened.aside)


def step(folder: Path) -> Step | None:
    """Step of the checkpoint, whether the folder of the step was given or the one below."""
    return step_of(folder.parent if folder.name in BELOW else folder)


def unfinished(folder: Path) -> str:
    """What is wrong where there are pieces but no list of them."""
    for place in _iter_places(folder):
        if any(place.glob("__*.distcp")) and not (place / METADATA).is_file():
            return (
                f"has pieces of a distributed checkpoint but no {METADATA}, which is written last: "
                "it is still being saved, or saving it was cut off"
            )
    return ""


def _place(folder: Path) -> Path | None:
    """Folder that holds the pieces."""
    for place in _iter_places(folder):
        if (place / METADATA).is_file() or any(iter_shards(place)):
            return place
    return None


def _iter_places(folder: Path) -> Iterator[Path]:
    yield from (folder, *(folder / name for name in BELOW))


def _config(place: Path) -> dict[str, Any]:
    """The config of the model beside the pieces or above them; empty if there is none.

    The config of a trainer has the model in its section ``model``.
    """
    for folder in _iter_above(place):
        for config in (read_json(folder / "config.json"), read_yaml(folder / "config.yaml")):
            if config:
                model = config.get("model")
                return model if isinstance(model, dict) else config
    return {}


def _iter_above(place: Path) -> Iterator[Path]:
    """The folders of the pieces, of the step, and of the run."""
    step_folder = place.parent if place.name in BELOW else place
    run = step_folder.parent
    yield from dict.fromkeys((place, step_folder, run))
    if run.name in SERIES:
        yield run.parent


LAYOUT = Layout(
    "Torch distributed checkpoints (DCP): .metadata with __0_0.distcp, as torchtitan, OLMo-core, "
    "Fabric and Accelerate write them; also shard-*-model-*.safetensors",
    recognises,
    read,
    step=step,
    flaw=unfinished,
)
