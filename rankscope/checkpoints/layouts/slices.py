"""Checkpoints stored in slices, one file per process of a parallel training.

They are joined where it is certain how: the files record it (DTensor, ShardedTensor), or they are
Meta's or Megatron's and the result has the shapes that the configuration states. Otherwise they are
refused; a slice is never taken for a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.opened_file import together
from rankscope.checkpoints.files.weights_file import step_under
from rankscope.checkpoints.layouts import numpy_archive, safetensors_alone, torch_object
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.slicing.joining import (
    Joined,
    by_record,
    by_rule,
    check_names,
    without_twins,
)
from rankscope.checkpoints.slicing.slice_file import OpenSlice, open_slice
from rankscope.checkpoints.slicing.sliced_groups import group_around, group_of, sliced_groups
from rankscope.checkpoints.slicing.slices_by_name import Slices, entries_of
from rankscope.checkpoints.slicing.split_rules import (
    heads_of_slices,
    layers_in,
    layers_renamed,
    megatron_config,
    megatron_rule,
    meta_rule,
    params_beside,
    stages_of,
)
from rankscope.checkpoints.steps import step_in_name, step_of
from rankscope.errors import RankscopeError, printable

STEP_KEYS = (*torch_object.STEP_KEYS, "iteration", "global_steps")
# Tools that make whole weights of such files, by a word in their names.
TOOLS = {
    "consolidated": "convert_llama_weights_to_hf.py of transformers",
    "mp_rank": "the converter of Megatron (tools/checkpoint/convert.py) or of NeMo",
    "tp_rank": "the converter of NeMo or Megatron",
}
ANY_TOOL = (
    "the tool of the trainer that wrote them (verl: model_merger), or save with "
    "full_state_dict=True of torch.distributed.checkpoint.state_dict"
)


def recognises(path: Path) -> bool:
    """Whether the path is a folder of nothing but slices, or the first file of several.

    The other files, and folders of them, are not checkpoints of any layout (`is_another_slice`).
    """
    group = _group_at(path)
    return group is not None and path in (group.path, group.files[0])


def is_another_slice(path: Path) -> bool:
    """Whether a file is one of several slices, another of which represents the checkpoint.

    Also true of a folder that holds only one of them.
    """
    group = group_around(path)
    return group is not None and not group.is_whole and path not in (group.path, group.files[0])


def flaw(path: Path) -> str:
    """What is wrong with a file or folder that is one of several slices."""
    if not is_another_slice(path) or (group := group_around(path)) is None:
        return ""
    place = group.path if group.path.is_dir() else path.parent
    return f"is one slice of a checkpoint that {_in_words(group)}: give {printable(place.name)}"


def read(path: Path, options: Options) -> Contents:
    """Read the headers of all slices, and join what they hold.

    Raises
    ------
    RankscopeError
        With the reason ``slices`` where it is not certain how to join them, or where some are
        missing; also if a file is damaged.
    """
    group = _group_at(path)
    if group is None:
        raise RankscopeError("does not hold slices of a checkpoint", path=path)
    if len(group.files) < group.world:
        there = ", ".join(file.name for file in group.files[:3])
        message = f"has {len(group.files)} of {group.world} slices of a checkpoint ({there})"
        raise _refused(message, path, group)
    if len(group.files) == 1 and not group.is_whole:
        message = f"has only one of several slices, going by its name ({group.files[0].name})"
        raise _refused(message, path, group)
    slices = [open_slice(file, trust=options.trust_pickle) for file in group.files]
    try:
        return _joined(slices, group, options)
    except RankscopeError as error:
        if error.reason != "unreadable" or (error.path and not error.tensor):
            raise  # what is wrong with a file by itself, such as a damaged params.json
        where = "" if error.tensor is None else f" {printable(error.tensor)!r}"
        raise _refused(f"{_in_words(group)}:{where} {error.message}", path, group) from None


def step(path: Path) -> Step | None:
    """Step in the folder's name or in what the files' names share, else in the first file."""
    group = _group_at(path)
    named = step_of(path) if path.is_dir() else None
    if named is not None or group is None:
        return named
    for part in group.name.split("/"):
        stated = step_in_name(part)
        if stated is not None:
            return stated, "file"
    return step_under(group.files[0], *STEP_KEYS)


def _group_at(path: Path) -> Slices | None:
    if not path.is_dir():
        return group_of(path)
    groups = sliced_groups(entries_of(path))
    return groups[0] if len(groups) == 1 and groups[0].path == path else None


def _joined(slices: Sequence[OpenSlice], group: Slices, options: Options) -> Contents:
    """What the slices are together.

    Raises
    ------
    RankscopeError
        If that is not certain.
    """
    folder = group.files[0].parent
    if any(one.pieces for one in slices):
        return _contents(by_record(slices), slices, _config_around(folder), options)
    params = params_beside(folder)
    if params:
        return _contents(by_rule(slices, meta_rule(params)), slices, params, options)
    config = megatron_config(slices[0])
    if config and "rank" in group.names[0].form:
        return _megatron(slices, group, config, options)
    if len(slices) == 1:
        return _alone(group.files[0], options)
    check_names(slices)
    raise RankscopeError("there is no configuration to check the joined shapes against")


def _megatron(
    slices: Sequence[OpenSlice], group: Slices, config: Mapping[str, Any], options: Options
) -> Contents:
    numbers = [name.numbers for name in group.names]
    stages = stages_of(slices, numbers)
    world = _sizes_of(config)
    if not stages or (world is not None and world != (len(stages[0]), len(stages))):
        wanted = "" if world is None else f", but the configuration has {world[0]}×{world[1]}"
        raise RankscopeError(f"their numbers are not a grid of tensor ranks and stages{wanted}")
    version = slices[0].entries.get("checkpoint_version")
    heads = heads_of_slices(config, version)
    if len(slices) == 1:
        return _alone(group.files[0], options, heads)
    rule, joined, offset = megatron_rule(config), Joined(), 0
    for stage in stages:
        part = by_rule(stage, rule)
        count = layers_in(list(part.tensors))
        if count < 0 and len(stages) > 1:
            raise RankscopeError("a stage of the pipeline does not count its layers from 0")
        joined.add(part, layers_renamed(offset))
        offset += count
    total = config.get("num_layers")
    if len(stages) > 1 and type(total) is int and total != offset:
        raise RankscopeError(f"the stages have {offset} layers, the configuration {total}")
    return _contents(joined, slices, heads, options)


def _sizes_of(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Numbers of tensor ranks and stages that the configuration states."""
    tensors = config.get("tensor_model_parallel_size")
    stages = config.get("pipeline_model_parallel_size", 1)
    return (tensors, stages) if type(tensors) is int and type(stages) is int else None


def _contents(
    joined: Joined, slices: Sequence[OpenSlice], config: Mapping[str, Any], options: Options
) -> Contents:
    tensors, twins = without_twins(joined.tensors)
    if not any(len(tensor.shape) > 1 for tensor in tensors.values()):
        raise RankscopeError("none of their matrices is known, so none is joined")
    others = together((one.others for one in slices), tensors)
    return contents_of(
        "slices",
        tensors,
        config,
        options,
        skips=(*joined.skips, *others.skips),
        notes=others.notes,
        aside=(*joined.aside, *twins, *others.aside),
    )


def _alone(file: Path, options: Options, config: Mapping[str, Any] | None = None) -> Contents:
    """The contents of a single file that is a whole model, as far as its name says."""
    if file.suffix == ".safetensors":
        return safetensors_alone.read(file, options)
    if file.suffix == ".npz":
        return numpy_archive.read(file, options)
    contents = torch_object.read(file, options)
    return contents if config is None else replace(contents, layout="slices")


def _config_around(folder: Path) -> Mapping[str, Any]:
    """The model's config beside the slices, above them, or in the folder below that verl writes."""
    places = (folder, folder / "huggingface", folder.parent, folder.parent / "huggingface")
    return next(filter(None, (read_json(place / "config.json") for place in places)), {})


def _in_words(group: Slices) -> str:
    """The number of files, and the first and last name."""
    shown = [_below(file, group) for file in (group.files[0], group.files[-1])]
    if len(group.files) == 1:
        return f"looks like a single slice of a parallel training ({shown[0]})"
    return f"is in {len(group.files)} slices of a parallel training ({' … '.join(shown)})"


def _below(file: Path, group: Slices) -> str:
    """Path of a file from the folder that holds all slices."""
    around = next(p for p in file.parents if all(p in other.parents for other in group.files))
    return file.relative_to(around).as_posix()


def _refused(message: str, path: Path, group: Slices) -> RankscopeError:
    form = f"{group.names[0].form}/{group.files[0].parent.name}/{group.files[0].name}"
    tool = next((tool for word, tool in TOOLS.items() if word in form), ANY_TOOL)
    return RankscopeError(f"{message}. Join them with {tool}", path=path, reason="slices")


LAYOUT = Layout(
    "slices: one file per process of a parallel training (consolidated.NN.pth with "
    "params.json, mp_rank_NN, model_world_size_N_rank_R.pt), joined where it is certain how",
    recognises,
    read,
    step,
    is_file=None,
    flaw=flaw,
)
